"""Prices nearer to those of whole labels: Sinkhorn at lower temperatures, on the best candidates of each sample alone.

Labels at the prices of a warm plan miss the bounds of many classes by a few samples, and each of these costs the exact
search a path. On few candidates a pass is a small part of one over all scores, so going on to a cold plan is cheap.
"""

import numpy as np

from fasttrain.scores.redistribution.marginals import Marginals
from fasttrain.scores.redistribution.sinkhorn import solve

CANDIDATES = 16
FACTOR = 1 / 16
TOLERANCE = 5e-3
ITERATIONS = 100
# Nats by which a price may change: candidates that are too few for a class's bounds would raise it without end.
LARGEST_CHANGE = 1.0
BLOCK_ROWS = 1 << 14


class _CandidatePasses:
    """`fasttrain.scores.redistribution.passes.Sums` over (N, k) scores of candidates; -inf is none."""

    def __init__(self, classes: np.ndarray, values: np.ndarray, columns: int) -> None:
        self._classes, self._values, self._columns = classes, values, columns
        self.samples = len(classes)

    def sums(self, v: np.ndarray, eps: float) -> tuple[np.ndarray, float]:
        """See there."""
        sums, normalisers = np.zeros(self._columns), 0.0
        for start in range(0, self.samples, BLOCK_ROWS):
            part = slice(start, start + BLOCK_ROWS)
            exponent = self._values[part] / eps + v[self._classes[part]]
            top = exponent.max(1, keepdims=True)
            plan = np.exp(exponent - top)
            normaliser = plan.sum(1, keepdims=True)
            plan /= normaliser
            sums += np.bincount(self._classes[part].ravel(), plan.ravel(), self._columns)
            normalisers += float((top + np.log(normaliser)).sum())
        return sums, normalisers

    def possible(self, columns: np.ndarray) -> np.ndarray:
        """See there; said of all, because the prices are only a start."""
        return np.ones(len(columns), bool)


def sharpened(
    classes: np.ndarray, values: np.ndarray, potential: np.ndarray, eps: float, lower: np.ndarray, upper: np.ndarray
) -> np.ndarray:
    """(C,) potential in nats of a plan at a `FACTOR` of the temperature; -inf stays.

    Args:
        classes: (N, k) candidates, best first.
        values: (N, k) float64 their scores; -inf for none.
        potential: (C,) at `eps`.
        eps: temperature that the potential is from.
        lower, upper: (C,) bounds of whole counts.
    """
    few = slice(None), slice(CANDIDATES)
    passes = _CandidatePasses(classes[few], values[few], len(potential))
    marginals = Marginals(lower.astype(np.float64), upper.astype(np.float64))
    with np.errstate(invalid="ignore"):  # -inf of closed classes
        found = solve(
            passes,
            marginals,
            eps=eps * FACTOR,
            tolerance=TOLERANCE,
            max_iterations=ITERATIONS,
            start=(potential / eps, eps),
        )
        change = found.potential - potential
    middle = float(np.median(change[np.isfinite(potential)]))  # a constant moves no sample
    change = np.clip(change - middle, -LARGEST_CHANGE, LARGEST_CHANGE)
    change += np.clip(middle, -LARGEST_CHANGE, LARGEST_CHANGE)  # too few candidates may send it far off
    return np.where(np.isfinite(potential), potential + change, potential)
