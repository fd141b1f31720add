"""How good a score table is, by labels that it holds or that a file tells."""

from typing import Any

import numpy as np

from fasttrain.base.errors import ScoresError
from fasttrain.scores.table import ScoreTable

TOP = 5


def evaluate(table: ScoreTable, labels: np.ndarray | None = None, *, classes: bool = False) -> dict[str, Any]:
    """Measure a table over its labelled samples.

    Args:
        labels: (N,) int32, -1 where unknown; by default those of the table.
        classes: tell of each class, too.

    Returns:
        {samples, top1, top5, loss, macro_f1}, fractions in 0–1: as `fasttrain evaluate` measures a model; loss is the
        mean negative log-likelihood. Of a re-distributed table also top1_assigned and macro_f1_assigned; with
        `classes` also per_class, a list of {class, samples, predicted, accuracy, f1} of the labels that count:
        assigned ones where there are any.

    Raises:
        ScoresError: no sample is labelled.
    """
    labels = table.labels if labels is None else labels
    known = np.flatnonzero(labels >= 0)
    if not len(known):
        raise ScoresError("no sample of the table has a label to measure by; name a file of them with --labels")
    predicted = table.argmax()
    top5, loss = _top5_and_loss(table, labels)
    count, true = len(table.classes), labels[known]
    confusion = _confusion(true, predicted[known], count)
    result = {
        "samples": len(known),
        "top1": float(confusion.trace() / len(known)),
        "top5": top5 / len(known),
        "loss": loss / len(known),
        "macro_f1": _macro_f1(confusion),
    }
    if table.assigned is not None:
        confusion = _confusion(true, table.assigned[known], count)
        result["top1_assigned"] = float(confusion.trace() / len(known))
        result["macro_f1_assigned"] = _macro_f1(confusion)
    return {**result, "per_class": _per_class(confusion, table.classes)} if classes else result


def _top5_and_loss(table: ScoreTable, labels: np.ndarray) -> tuple[int, float]:
    """Hits among the five highest scores, and the summed negative log-likelihood."""
    hits, loss = 0, 0.0
    for rows in table.row_blocks():
        of_block = labels[rows]
        counted = np.flatnonzero(of_block >= 0)
        if len(counted):
            log_probs = table.log_probs(rows)[counted]
            own = np.take_along_axis(log_probs, of_block[counted, None].astype(np.int64), 1)
            hits += int(((log_probs > own).sum(1) < TOP).sum())
            loss -= float(own.sum())
    return hits, loss


def _confusion(true: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """(C, C) int64: rows are true classes, columns predicted ones."""
    cells = true.astype(np.int64) * classes + predicted
    return np.bincount(cells, minlength=classes * classes).reshape(classes, classes)


def _macro_f1(confusion: np.ndarray) -> float:
    """Mean over the classes that occur in the labels."""
    true, predicted = confusion.sum(1), confusion.sum(0)
    f1 = 2 * confusion.diagonal() / np.maximum(true + predicted, 1)
    return float(f1[true > 0].mean())


def _per_class(confusion: np.ndarray, names: list[str]) -> list[dict[str, Any]]:
    true, predicted, hits = confusion.sum(1).tolist(), confusion.sum(0).tolist(), confusion.diagonal().tolist()
    return [
        {
            "class": name,
            "samples": samples,
            "predicted": taken,
            "accuracy": right / samples if samples else None,
            "f1": 2 * right / (samples + taken) if samples else None,
        }
        for name, samples, taken, right in zip(names, true, predicted, hits, strict=True)
    ]
