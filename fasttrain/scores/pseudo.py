"""Confident predictions as labels for another round of training."""

import csv
from pathlib import Path
from typing import Any

import numpy as np

from fasttrain.base.atomic import atomic_open
from fasttrain.base.errors import ScoresError
from fasttrain.scores.table import ScoreTable

HEADER = ("id", "label", "confidence", "source", "round")


def write_pseudo_labels(
    table: ScoreTable,
    out: str | Path,
    *,
    threshold: float,
    use: str | None = None,
    source: str = "",
    round_number: int = 1,
) -> dict[str, Any]:
    """Write the samples whose confidence is above a threshold as a CSV file ``id,label,confidence,source,round``.

    Args:
        table: an ensemble, re-distributed or not.
        out: the file.
        threshold: kept are confidences strictly above it.
        use: ``argmax`` with its probability, ``assigned`` with that of the transport plan; by default the latter where
            it is there.
        source: where the labels come from, for the file's column.
        round_number: round of self-training, likewise.

    Returns:
        {samples, kept, per_class: {name: count}}.
    """
    if not 0 <= threshold < 1:
        raise ScoresError(f"a threshold is a probability of at least 0 and below 1, not {threshold}")
    labels = table.predictions(use)
    confidence = _confidence(table, labels)
    kept = np.flatnonzero(confidence > threshold)
    with atomic_open(out, newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(HEADER)
        for row in kept:
            name = table.classes[labels[row]]
            writer.writerow([table.ids[row], name, repr(float(confidence[row])), source, round_number])
    counts = np.bincount(labels[kept], minlength=len(table.classes)).tolist()
    return {"samples": len(table), "kept": len(kept), "per_class": dict(zip(table.classes, counts, strict=True))}


def _confidence(table: ScoreTable, labels: np.ndarray) -> np.ndarray:
    """(N,) float64: probability of each label, from the transport plan if the labels are its."""
    if labels is table.assigned and table.assigned_p is not None:
        return table.assigned_p.astype(np.float64)
    confidence = np.empty(len(table))
    for rows in table.row_blocks():
        confidence[rows] = np.take_along_axis(table.probs(rows), labels[rows, None].astype(np.int64), 1)[:, 0]
    return confidence
