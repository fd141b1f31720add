"""What a score table holds, in figures: for `fasttrain scores show` and reports."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from fasttrain.scores.measures.figures import Figures, likelihoods
from fasttrain.scores.table import ScoreTable

CONFIDENCE_BINS = 10
EXTREMES = 5  # classes told of at either end


@dataclass(frozen=True)
class Shown:
    """A table looked through once.

    Attributes:
        table: itself.
        predicted: int32 (N,), the class of the highest score.
        confidence: float64 (N,), its probability.
        figures: top1, nll and ece of the labelled samples; empty without labels.
    """

    table: ScoreTable
    predicted: np.ndarray
    confidence: np.ndarray
    figures: dict[str, float]

    def counts(self, labels: np.ndarray) -> np.ndarray:
        """int64 (C,): how often each class is among `labels`; those below 0 are left out."""
        return np.bincount(labels[labels >= 0], minlength=len(self.table.classes))

    def histogram(self) -> np.ndarray:
        """int64 (CONFIDENCE_BINS,): samples by confidence, in bins of equal width from 0 to 1."""
        return np.histogram(self.confidence, CONFIDENCE_BINS, (0, 1))[0]


def look_at(table: ScoreTable) -> Shown:
    """Go through a table once, block by block."""
    predicted, confidence = np.empty(len(table), np.int32), np.empty(len(table))
    figures = Figures()
    for rows in table.row_blocks():
        scores, labels = table.scores[rows], table.labels[rows]
        predicted[rows], confidence[rows], _ = likelihoods(scores, table.kind, np.maximum(labels, 0))
        figures.add(scores, table.kind, labels)
    return Shown(table, predicted, np.minimum(confidence, 1.0), figures.result())


def describe(shown: Shown, rows: int = 5) -> dict[str, Any]:
    """What `fasttrain scores show` tells of a table.

    Args:
        shown: from `look_at`.
        rows: so many samples are told of one by one.

    Returns:
        {samples, classes, shape, kind, dtype, bytes (of the scores), labelled, mean_confidence, confidence: {edges,
        counts}, predicted_counts, largest, smallest, meta, first}; where labels are known top1, nll, ece (15 bins);
        of a re-distributed table assigned_counts, changed, top1_assigned.
    """
    table, predicted = shown.table, shown.predicted
    counts = shown.counts(predicted)
    description: dict[str, Any] = {
        "samples": len(table),
        "classes": table.classes,
        "shape": list(table.scores.shape),
        "kind": table.kind,
        "dtype": str(table.scores.dtype),
        "bytes": table.scores.nbytes,
        "labelled": int((table.labels >= 0).sum()),
        **shown.figures,
        "mean_confidence": float(shown.confidence.mean()),
        "confidence": {
            "edges": np.linspace(0, 1, CONFIDENCE_BINS + 1).round(3).tolist(),
            "counts": shown.histogram().tolist(),
        },
        "predicted_counts": _named(table, counts),
        "largest": _extremes(table, counts, -1),
        "smallest": _extremes(table, counts, 1),
        "meta": table.meta,
    }
    if table.assigned is not None:
        description["assigned_counts"] = _named(table, shown.counts(table.assigned))
        description["changed"] = int((table.assigned != predicted).sum())
        if shown.figures:
            description["top1_assigned"] = table.accuracy(table.assigned)
    description["first"] = [
        {"id": table.ids[row], "predicted": table.classes[predicted[row]], "confidence": float(shown.confidence[row])}
        for row in range(min(rows, len(table)))
    ]
    return description


def _named(table: ScoreTable, counts: np.ndarray) -> dict[str, int]:
    return dict(zip(table.classes, counts.tolist(), strict=True))


def _extremes(table: ScoreTable, counts: np.ndarray, sign: int) -> dict[str, int]:
    """The classes of the largest (sign -1) or smallest counts."""
    order = np.argsort(sign * counts, kind="stable")[:EXTREMES]
    return {table.classes[number]: int(counts[number]) for number in order}
