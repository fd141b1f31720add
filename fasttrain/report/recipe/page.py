"""The report of a recipe as one page, and its figures as plain values."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fasttrain.base.errors import FasttrainError
from fasttrain.report.page import Block, Facts, Page, Section, Text, write_page
from fasttrain.report.recipe.accuracy import accuracy_section, worst_classes_section
from fasttrain.report.recipe.graph import graph_figure
from fasttrain.report.recipe.labels import cleaning_section, pseudo_section, redistribution_section
from fasttrain.report.recipe.measured import TOP1, Gain, Measure, gains, measures
from fasttrain.report.recipe.measured_masks import MIOU, MaskMeasure, mask_gains, mask_measures
from fasttrain.report.recipe.measured_trainings import training_gains
from fasttrain.report.recipe.pictures import pictures_section
from fasttrain.report.recipe.provenance import provenance_section, stages_section
from fasttrain.report.recipe.training import TRAININGS, training_section
from fasttrain.report.recipe.views import RecipeView, readable_time
from fasttrain.report.tables import percent


def recipe_figures(view: RecipeView) -> dict[str, Any]:
    """What the page shows, for programs: {name, stages: count by state, seconds, accuracies, masks, gains, trainings};
    `accuracies` are top-1 of `evaluate` stages, `masks` mIoU of `segment_evaluate` stages."""
    found, masks, added = _measured(view)
    return {
        "name": view.name,
        "stages": dict(Counter(stage.state for stage in view.stages)),
        "seconds": round(sum(stage.seconds for stage in view.stages), 1),
        "accuracies": [{**asdict(one), "final": one.final} for one in found],
        "masks": [asdict(one) for one in masks],
        "gains": [{**asdict(one), "gain": one.gain} for one in added],
        "trainings": [
            {
                "stage": stage.name,
                "seconds": stage.seconds,
                "images_per_s": stage.result.get("images_per_s"),
                "val_top1": stage.result.get("top1"),
                "val_miou": stage.result.get("miou"),
            }
            for stage in view.of_kind(*TRAININGS)
        ],
    }


def write_recipe_page(view: RecipeView, path: str | Path) -> Path:
    """Write the page about what there is of a recipe; a part of it that cannot be read says so in its place."""
    found, masks, added = _measured(view)
    parts: list[tuple[str, Callable[[], Section | None]]] = [
        ("Graph", lambda: _graph(view, found, masks)),
        ("Stages", lambda: stages_section(view)),
        ("Accuracy", lambda: accuracy_section(view, found, masks, added)),
        ("Worst classes", lambda: worst_classes_section(view, found)),
        ("Re-distribution", lambda: redistribution_section(view)),
        ("Pseudo-labels", lambda: pseudo_section(view)),
        ("Cleaning", lambda: cleaning_section(view)),
        ("Pictures", lambda: pictures_section(view)),
        ("Training", lambda: training_section(view)),
        ("Provenance", lambda: provenance_section(view)),
    ]
    sections = [section for title, make in parts if (section := _attempted(title, make)) is not None]
    return write_page(Page(view.name, view.description, sections), path)


def _measured(view: RecipeView) -> tuple[list[Measure], list[MaskMeasure], list[Gain]]:
    found, masks = measures(view), mask_measures(view)
    return found, masks, [*training_gains(view, found), *gains(view, found), *mask_gains(view, masks)]


def _attempted(title: str, make: Callable[[], Section | None]) -> Section | None:
    """A section; a file that is gone or damaged costs no more than the part that needs it."""
    try:
        return make()
    except (FasttrainError, OSError, KeyError, ValueError) as error:
        return Section(title, [Text(f"This part cannot be shown: {error}")])


def _graph(view: RecipeView, found: Sequence[Measure], masks: Sequence[MaskMeasure]) -> Section:
    states = Counter(stage.state for stage in view.stages)
    facts = {state: str(count) for state, count in states.items()}
    facts["time, stage after stage"] = readable_time(sum(stage.seconds for stage in view.stages))
    for told, measured in ((f"best {TOP1} by", found), (f"best {MIOU} on", masks)):
        if measured:
            mostly = Counter(one.labels for one in measured).most_common(1)[0][0]
            facts[f"{told} {mostly}"] = percent(max(one.final for one in measured if one.labels == mostly))
    caption = "Each stage below those that it needs; connections that follow from others are left out."
    blocks: list[Block] = [Facts(facts), graph_figure(view, caption)]
    return Section("Graph", blocks)
