"""Score matrices that are awkward in some way, and plain float64 results."""

import numpy as np

SHAPES = [(1, 1), (1, 40), (7, 3), (130, 33), (70, 16), (5, 1000), (3, 2049), (400, 257)]


def scores_of(shape: tuple[int, int], dtype: type, spread: float = 5.0, seed: int = 0) -> np.ndarray:
    """Logits of which some are -inf, but no row's all."""
    generator = np.random.default_rng(seed)
    scores = (generator.normal(size=shape) * spread).astype(dtype)
    if shape[1] > 2:
        scores[generator.random(shape) < 0.05] = -np.inf
        scores[:, 1] = 0
    return scores


def offsets_of(columns: int, seed: int = 1) -> np.ndarray:
    """Column offsets, one of them -inf."""
    offsets = np.random.default_rng(seed).normal(size=columns)
    if columns > 2:
        offsets[0] = -np.inf
    return offsets


def softmax64(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Row softmax and log-normalisers, in float64."""
    top = values.max(1, keepdims=True)
    powers = np.exp(values - top)
    sums = powers.sum(1, keepdims=True)
    return powers / sums, (top + np.log(sums))[:, 0]


def tables_of(shape: tuple[int, int], kinds: list[str], dtypes: list[type]) -> list[np.ndarray]:
    """Tables of various kinds and types."""
    tables = []
    for number, (kind, dtype) in enumerate(zip(kinds, dtypes, strict=True)):
        scores = scores_of(shape, np.float32, seed=number)
        if kind != "logits":
            plan, _ = softmax64(scores.astype(np.float64))
            with np.errstate(divide="ignore"):
                scores = plan if kind == "probs" else np.log(plan)
        tables.append(scores.astype(dtype))
    return tables
