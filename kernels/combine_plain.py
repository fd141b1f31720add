"""`fasttrain.kernels.combine` in NumPy, in float64: the reference version."""

from collections.abc import Sequence

import numpy as np

from fasttrain.kernels.assign_plain import best_of
from fasttrain.kernels.softmax_colsum_plain import BLOCK_ENTRIES


def combine(
    *,
    tables: Sequence[np.ndarray],
    weights: Sequence[float],
    temperatures: Sequence[float],
    kinds: Sequence[str],
    rows: Sequence[np.ndarray | None],
    columns: Sequence[np.ndarray | None],
    space: str,
    out: np.ndarray,
    label: np.ndarray,
    top_classes: np.ndarray,
    top_values: np.ndarray,
) -> None:
    """As `fasttrain.kernels.combine.combine`; all results into arrays that are given."""
    count, width = out.shape
    step = max(1, BLOCK_ENTRIES // width)
    for start in range(0, count, step):
        part = slice(start, min(start + step, count))
        total = np.zeros((part.stop - start, width))
        for table, weight, temperature, kind, row, column in zip(
            tables, weights, temperatures, kinds, rows, columns, strict=True
        ):
            scores = table[part] if row is None else table[row[part]]
            value = _in_space(scores, kind, space, temperature)
            total += weight * (value if column is None else value[:, column])
        if space == "log_probs":
            total = _log_normalised(total)
        values = total.astype(np.float32)
        best = best_of(values, top_classes.shape[1])
        out[part], label[part] = values, values.argmax(1)
        top_classes[part], top_values[part] = best, np.take_along_axis(values, best, 1)


def empty(rows: int, top: int) -> dict[str, np.ndarray]:
    """Arrays to be filled."""
    return {
        "label": np.empty(rows, np.int32),
        "top_classes": np.empty((rows, top), np.int32),
        "top_values": np.empty((rows, top), np.float32),
    }


def _in_space(scores: np.ndarray, kind: str, space: str, temperature: float) -> np.ndarray:
    values = scores.astype(np.float64)
    if kind == "probs":
        if space == "probs" and temperature == 1:
            return values / np.maximum(values.sum(1, keepdims=True), np.finfo(np.float64).tiny)
        values = np.log(np.maximum(values, float(np.finfo(scores.dtype).smallest_subnormal)))
    values /= temperature
    if space == "logits":
        return values
    values = _log_normalised(values)
    return np.exp(values) if space == "probs" else values


def _log_normalised(values: np.ndarray) -> np.ndarray:
    top = values.max(1, keepdims=True)
    top[np.isneginf(top)] = 0
    total = np.exp(values - top).sum(1, keepdims=True)
    total[total == 0] = 1  # a row of nothing but -inf stays one
    return values - (top + np.log(total))
