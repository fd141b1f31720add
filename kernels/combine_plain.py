"""`fasttrain.kernels.combine` in NumPy, in float64: the reference version."""

from collections.abc import Sequence

import numpy as np

from fasttrain.kernels.assign_plain import best_of
from fasttrain.kernels.softmax_colsum_plain import BLOCK_ENTRIES


def combine(
    tables: Sequence[np.ndarray],
    weights: Sequence[float],
    *,
    space: str,
    kinds: Sequence[str],
    temperatures: Sequence[float],
    columns: Sequence[np.ndarray | None],
    rows: Sequence[np.ndarray | None],
    out: np.ndarray,
    top: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """As `fasttrain.kernels.combine.combine`: labels, best classes and their values."""
    count, width = out.shape
    label, best = np.empty(count, np.int32), np.empty((count, top), np.int32)
    values = np.empty((count, top), np.float32)
    step = max(1, BLOCK_ENTRIES // width)
    for start in range(0, count, step):
        part = slice(start, min(start + step, count))
        total = np.zeros((part.stop - start, width))
        for table, weight, kind, temperature, column, row in zip(
            tables, weights, kinds, temperatures, columns, rows, strict=True
        ):
            if weight:  # else its -inf would make NaN
                scores = table[part] if row is None else table[row[part]]
                value = _in_space(scores, kind, space, temperature)
                total += weight * (value if column is None else value[:, column])
        if space == "log_probs":
            total = _log_normalised(total)
        out[part] = total
        label[part] = total.argmax(1)
        best[part] = best_of(total, top)
        values[part] = np.take_along_axis(total, best[part], 1)
    return label, best, values


def _in_space(scores: np.ndarray, kind: str, space: str, temperature: float) -> np.ndarray:
    values = scores.astype(np.float64)
    if kind == "probs":
        if space == "probs" and temperature == 1:
            return values / values.sum(1, keepdims=True)
        values = np.log(np.maximum(values, float(np.finfo(scores.dtype).smallest_subnormal)))
    values /= temperature
    if space == "logits":
        return values
    values = _log_normalised(values)
    return np.exp(values) if space == "probs" else values


def _log_normalised(values: np.ndarray) -> np.ndarray:
    top = values.max(1, keepdims=True)
    top[np.isneginf(top)] = 0  # a row of nothing but -inf stays one
    with np.errstate(divide="ignore"):
        return values - (top + np.log(np.exp(values - top).sum(1, keepdims=True)))
