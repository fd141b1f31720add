"""`fasttrain.kernels.assign` in NumPy: the reference version."""

import numpy as np

from fasttrain.kernels.softmax_colsum_plain import BLOCK_ENTRIES, refuse_empty_rows

Parts = dict[str, np.ndarray]


def assign(scores: np.ndarray, offsets: np.ndarray, temperature: float, top: int) -> Parts:
    """As `fasttrain.kernels.assign.assign`; the attributes of its result by name. In float64."""
    rows, columns = scores.shape
    found = empty(rows, top)
    step = max(1, BLOCK_ENTRIES // columns)
    for start in range(0, rows, step):
        part = slice(start, min(start + step, rows))
        adjusted = scores[part].astype(np.float64) + temperature * offsets
        label, first, second = leaders(adjusted)
        refuse_empty_rows(first, start)
        normaliser = np.exp((adjusted - first[:, None]) / temperature).sum(1)
        found["label"][part], found["margin"][part] = label, first - second
        found["probability"][part] = 1 / normaliser
        found["log_normaliser"][part] = first / temperature + np.log(normaliser)
        if top:
            best = best_of(adjusted, top)
            found["top_classes"][part] = best
            found["top_values"][part] = np.take_along_axis(adjusted, best, 1)
    return found


def empty(rows: int, top: int) -> Parts:
    """Arrays to be filled."""
    return {
        "label": np.empty(rows, np.int32),
        "probability": np.empty(rows, np.float32),
        "margin": np.empty(rows, np.float32),
        "log_normaliser": np.empty(rows, np.float64),
        "top_classes": np.empty((rows, top), np.int32),
        "top_values": np.empty((rows, top), np.float32),
    }


def leaders(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of (n, C) values each row's first largest column, its value, and the second largest value (-inf if C is 1)."""
    label = values.argmax(1)
    first = np.take_along_axis(values, label[:, None], 1)[:, 0]
    if values.shape[1] == 1:
        return label, first, np.full(len(values), -np.inf)
    return label, first, np.partition(values, -2, axis=1)[:, -2]


def best_of(values: np.ndarray, top: int) -> np.ndarray:
    """(n, top) columns of the largest values, descending; among equals the lower column first."""
    return np.argsort(-values, axis=1, kind="stable")[:, :top]
