"""A report on a recipe: what its stages have measured, and their pictures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as PillowImage

from fasttrain.report.page import Block, Figure, Page, Section, Table, Text
from fasttrain.report.pictures import thumbnail
from fasttrain.report.tables import percent

# Figures of 0 to 1 that are shown, in this order, where a stage tells them.
FIGURES = ("miou", "mdice", "aacc", "macc", "top1", "top1_before", "top1_after", "macro_f1")
WIDEST = 1600  # pixels of a picture's longer side


@dataclass(frozen=True)
class StageFacts:
    """A stage that is done.

    Attributes:
        name, kind, seconds: see `fasttrain.recipes.state.Record`.
        measured: whether its result is figures, and nothing else comes of it.
        result: the JSON object of its command.
        pictures: files to look at.
    """

    name: str
    kind: str
    seconds: float
    measured: bool = False
    result: Mapping[str, Any] = field(default_factory=dict)
    pictures: Sequence[Path] = ()


def stages_page(title: str, subtitle: str, stages: Sequence[StageFacts], missing: Sequence[str] = ()) -> Page:
    """The report on stages, in the order in which they were given.

    Args:
        missing: names of stages that are not done.
    """
    sections = [Section("Figures", _figures([stage for stage in stages if stage.measured]))]
    pictures: list[Block] = []
    for stage in stages:
        pictures += [_figure(stage.name, path) for path in stage.pictures]
    if pictures:
        sections.append(Section("Pictures", pictures))
    rows = [[stage.name, stage.kind, f"{stage.seconds / 60:.1f}"] for stage in stages]
    rows.append(["all", "", f"{sum(stage.seconds for stage in stages) / 60:.1f}"])
    blocks: list[Block] = [Table(["stage", "kind", "minutes"], rows, strong=[len(rows) - 1], left=2)]
    if missing:
        blocks.append(Text(f"Not done: {', '.join(missing)}.", muted=True))
    return Page(title, subtitle, [*sections, Section("Stages", blocks)])


def _figures(stages: Sequence[StageFacts]) -> list[Block]:
    names = [name for name in FIGURES if any(stage.result.get(name) is not None for stage in stages)]
    if not names:
        return [Text("No stage has measured anything yet.", muted=True)]
    rows = [[stage.name, *(percent(stage.result.get(name)) for name in names)] for stage in stages]
    first = [stage.result.get(names[0]) or 0.0 for stage in stages]
    blocks: list[Block] = [Table(["stage", *names], rows, strong=[int(np.argmax(first))])]
    by_class = [stage for stage in stages if stage.result.get("iou") and stage.result.get("classes")]
    if by_class:
        classes = by_class[0].result["classes"]
        cells = [
            [stage.name, *map(percent, stage.result["iou"])] for stage in by_class if stage.result["classes"] == classes
        ]
        blocks.append(Table(["IoU", *classes], cells, "Intersection over union of each class."))
    return blocks


def _figure(stage: str, path: Path) -> Figure:
    with PillowImage.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    return Figure(thumbnail(pixels, WIDEST), f"{stage}: {path.stem}", f"picture {path.name} of the stage {stage}")
