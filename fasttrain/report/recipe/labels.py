"""Sections about labels: their counts before and after re-distribution, pseudo-labels, pictures of what changed.

Labels that were given are shown here, true ones never.
"""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fasttrain.base.errors import FasttrainError
from fasttrain.beton_build.reader import BetonReader
from fasttrain.report.figures import label_counts
from fasttrain.report.page import Block, Grid, Picture, Section, Table, Text
from fasttrain.report.pictures import thumbnail
from fasttrain.report.recipe.measured import prior_of
from fasttrain.report.recipe.views import RecipeView, StageView, spaced
from fasttrain.report.score_figures import ranked_counts
from fasttrain.report.scores import MAX_BARS
from fasttrain.report.tables import percent
from fasttrain.scores.files.label_files import read_label_file
from fasttrain.scores.table import ScoreTable

PICTURES = 24  # of a grid
Change = tuple[str, Sequence[str]]  # a sample's id, and what stands below its picture


def redistribution_section(view: RecipeView) -> Section | None:
    """How labels were re-distributed: counts and changes of each stage, and of the last round in pictures."""
    stages = view.of_kind("redistribute")
    if not stages:
        return None
    rows = [
        [
            spaced(stage.name),
            prior_of(stage),
            f"{stage.result['changed']:,} ({percent(stage.result['changed'] / stage.result['samples'])})",
            _or_dash(stage.result.get("count_min")),
            _or_dash(stage.result.get("count_max")),
            _yes_or_no(stage.result.get("converged")),
        ]
        for stage in stages
    ]
    columns = ["stage", "class counts", "labels changed", "smallest class", "largest class", "converged"]
    caption = "Bounds on the counts hold for the transport plan; for the labels where `round` is greedy or exact."
    blocks: list[Block] = [Table(columns, rows, caption, left=2)]
    for stage in view.of_last_round(stages):
        table = ScoreTable.read(stage.outputs["table"])
        before, after = table.argmax(), table.predictions()
        given = {"argmax": before, "re-distributed": after}
        blocks.append(_counts_figure(table.classes, given, f"Samples that were given each label, {stage.name}."))
        changes = [
            (table.ids[row], [f"{table.classes[before[row]]} →", table.classes[after[row]]])
            for row in _drawn(np.flatnonzero(before != after))
        ]
        total = int((before != after).sum())
        blocks += _grid(view, stage, changes, f"{stage.name}: {total:,} labels changed, from argmax to re-distributed")
    return Section("Re-distribution", blocks)


def pseudo_section(view: RecipeView) -> Section | None:
    """Which pseudo-labels were given, and which differ from those of the round before."""
    stages = view.of_kind("pseudo")
    if not stages:
        return None
    labels = {stage.name: _pseudo_labels(view, stage) for stage in stages}
    rows, grids = [], []
    for stage in stages:
        earlier = view.of_round_before(stage)
        classes, of_ids = labels[stage.name]
        moved: list[Change] = []
        compared = earlier is not None and earlier.name in labels
        if earlier is not None and compared:
            known = labels[earlier.name][1]
            moved = [
                (name, [f"{classes[known[name]]} →", classes[label]])
                for name, label in of_ids.items()
                if known.get(name, label) != label
            ]
            gone = len(known.keys() - of_ids.keys())
            told = f"{len(of_ids.keys() - known.keys()):,} new, {gone:,} gone, {len(moved):,} differ"
            caption = f"{stage.name}: {len(moved):,} labels differ from those of {earlier.name}"
            grids += _grid(view, stage, [moved[row] for row in _drawn(np.arange(len(moved)))], caption)
        share = percent(stage.result["kept"] / stage.result["samples"])
        rows.append([spaced(stage.name), told if compared else "–", f"{stage.result['kept']:,}", share])
    columns = ["stage", "against the round before", "labels", "share of the samples"]
    blocks: list[Block] = [Table(columns, rows, left=2)]
    for group in _templates(stages):
        classes = labels[group[-1].name][0]
        given = {stage.name: np.array(list(labels[stage.name][1].values()), np.int64) for stage in group}
        blocks.append(_counts_figure(classes, given, "Pseudo-labels of each class."))
    return Section("Pseudo-labels", [*blocks, *grids])


def cleaning_section(view: RecipeView) -> Section | None:
    """Training labels that were left out as probably wrong, worst first."""
    stages = view.of_kind("clean")
    if not stages:
        return None
    blocks: list[Block] = []
    for stage in stages:
        with stage.outputs["suspects"].open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        samples = stage.result.get("samples", 0)
        share = f" of {samples:,} ({percent(len(rows) / samples)})" if samples else ""
        blocks.append(Text(f"{stage.name} found {len(rows):,} labels{share} that are probably wrong."))
        changes = [(row["id"], [f"{row['label']} ?", row["suggested"]]) for row in rows]
        blocks += _grid(view, stage, changes[:PICTURES], f"{stage.name}: the least believable labels, and the models'")
    return Section("Cleaning", blocks)


def _pseudo_labels(view: RecipeView, stage: StageView) -> tuple[list[str], dict[str, int]]:
    """Class names, and the label of each sample."""
    made = [source.outputs["table"] for source in view.sources(stage, "table")]
    path = made[0] if made else Path(stage.files["table"][0])
    classes = ScoreTable.read(path).classes
    return classes, {name: found.label for name, found in read_label_file(stage.outputs["labels"], classes)}


def _templates(stages: Sequence[StageView]) -> list[list[StageView]]:
    groups: dict[str, list[StageView]] = {}
    for stage in stages:
        groups.setdefault(stage.template, []).append(stage)
    return [group[-4:] for group in groups.values()]


def _counts_figure(classes: Sequence[str], labels: dict[str, np.ndarray], caption: str) -> Block:
    counts = {name: np.bincount(of, minlength=len(classes)) for name, of in labels.items()}
    if len(classes) <= MAX_BARS:
        return label_counts(classes, counts, caption=caption)
    return ranked_counts(counts, f"{caption} The classes are in the order of their counts.")


def _drawn(rows: np.ndarray) -> np.ndarray:
    """At most `PICTURES` of some rows, at random and always the same ones."""
    return np.random.default_rng(0).permutation(rows)[:PICTURES]


def _grid(view: RecipeView, stage: StageView, changes: Sequence[Change], caption: str) -> list[Block]:
    """Pictures with what became of their labels; a sentence where there are none to be had."""
    if not changes:
        return [Text(f"{caption}.", muted=True)]
    try:
        tiles = _tiles(view.pictures_of(stage), changes)
    except (FasttrainError, OSError) as error:
        return [Text(f"{caption}. There are no pictures: {error}", muted=True)]
    if not tiles:
        return [Text(f"{caption}. The samples are in no .beton, so there are no pictures.", muted=True)]
    return [Grid(tiles, f"{caption}; {len(tiles)} of them.")]


def _tiles(paths: Sequence[Path], changes: Sequence[Change]) -> list[Picture]:
    """A picture of each sample that one of the files holds."""
    tiles: dict[str, Picture] = {}
    texts = dict(changes)
    for path in paths:
        missing = texts.keys() - tiles.keys()
        if not missing:
            break
        with BetonReader(path) as reader:
            rows = {name: row for row, name in enumerate(reader.ids) if name in missing}
            tiles |= {name: Picture(thumbnail(reader.image(row)), texts[name]) for name, row in rows.items()}
    return [tiles[name] for name, _ in changes if name in tiles]


def _or_dash(value: object) -> str:
    return "–" if value is None else f"{value:,}"


def _yes_or_no(value: bool | None) -> str:
    return "–" if value is None else "yes" if value else "no"
