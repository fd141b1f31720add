"""A page about score tables: what they hold, counts before and after re-distribution, confidence, agreement."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fasttrain.report.figures import confusion_matrix, label_counts
from fasttrain.report.page import Block, Facts, Page, Section, Table, Text, write_page
from fasttrain.report.score_figures import agreement_figure, confidence_histogram, ranked_counts, sorted_confidence
from fasttrain.report.tables import percent

MAX_BARS = 60  # classes that have bars of their own; beyond, counts are drawn by rank
META_SHOWN = 200  # characters of a value


@dataclass(frozen=True)
class ScoresView:
    """A score table as a report shows it.

    Attributes:
        name: of the table.
        classes: C names.
        facts: label to value, as they are to be shown.
        true: int (N,), -1 where unknown.
        predicted: int (N,).
        confidence: float (N,), probability of the predicted class.
        histogram: int (B,): samples by confidence, in bins of equal width from 0 to 1.
        assigned, assigned_p: labels int (N,) of a re-distribution and their probabilities in its plan, or None.
        meta: of the table.
    """

    name: str
    classes: Sequence[str]
    facts: Mapping[str, str]
    true: np.ndarray
    predicted: np.ndarray
    confidence: np.ndarray
    histogram: np.ndarray
    assigned: np.ndarray | None = None
    assigned_p: np.ndarray | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)


def write_scores_page(views: Sequence[ScoresView], path: str | Path, agreement: np.ndarray | None = None) -> Path:
    """Write the page about one or several tables.

    Args:
        views: the tables.
        path: the HTML file.
        agreement: (M, M) shares of samples that each pair of them predicts alike.
    """
    sections = [] if agreement is None else [_together(views, agreement)]
    sections += [Section(view.name, _blocks(view)) for view in views]
    title = views[0].name if len(views) == 1 else f"{len(views)} score tables"
    subtitle = "Scores, their confidence and the labels that follow from them."
    return write_page(Page(title, subtitle, sections), path)


def _together(views: Sequence[ScoresView], agreement: np.ndarray) -> Section:
    names = [view.name for view in views]
    caption = "Share of the samples for which two tables predict the same class."
    blocks: list[Block] = [agreement_figure(names, agreement, caption)]
    blocks.append(sorted_confidence({view.name: view.confidence for view in views}, "Sorted confidence of each table."))
    return Section("Agreement", blocks)


def _blocks(view: ScoresView) -> list[Block]:
    blocks: list[Block] = [Facts(view.facts)]
    counts = {"predicted": view.predicted}
    curves = {"predicted": view.confidence}
    if view.assigned is not None:
        counts = {"before": view.predicted, "after re-distribution": view.assigned}
        moved = int((view.predicted != view.assigned).sum())
        share = percent(moved / len(view.assigned))
        blocks.append(Text(f"Re-distribution changed {moved:,} of {len(view.assigned):,} labels ({share})."))
        if view.assigned_p is not None:
            curves = {"before": view.confidence, "after re-distribution": view.assigned_p}
    if (view.true >= 0).any():
        counts["true"] = view.true
    drawn = {name: np.bincount(of[of >= 0], minlength=len(view.classes)) for name, of in counts.items()}
    if len(view.classes) <= MAX_BARS:
        blocks.append(label_counts(view.classes, drawn, caption="Samples that were given each label."))
    else:
        blocks.append(ranked_counts(drawn, "Samples of each class, the classes in the order of their counts."))
    blocks.append(sorted_confidence(curves, "Confidence of each sample's label, sorted."))
    blocks.append(confidence_histogram(view.histogram, "Samples by the confidence of the predicted class."))
    if (view.true >= 0).any() and len(view.classes) <= MAX_BARS:
        last = view.predicted if view.assigned is None else view.assigned
        blocks.append(confusion_matrix(view.true, last, view.classes, "True classes by the labels given."))
    if view.meta:
        rows = [[key, _short(value)] for key, value in view.meta.items()]
        blocks.append(Table(["stored with the table", ""], rows, left=2))
    return blocks


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= META_SHOWN else text[: META_SHOWN - 1] + "…"
