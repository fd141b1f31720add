"""Entropic optimal transport of samples to classes, in the log domain, on the class dual alone.

``max <P, S> + eps H(P)`` over plans P >= 0 whose rows sum to 1 and whose column sums keep to given marginals (S: (N, C)
scores, log-probabilities up to a constant a row). The solution is ``P_i = softmax(S_i / eps + v)``; an iteration is one
pass over S for the column sums c and an update of the C numbers v (`fasttrain.scores.dual`).
"""

from dataclasses import dataclass

import numpy as np

from fasttrain.base.errors import ScoresError
from fasttrain.scores import dual
from fasttrain.scores.marginals import Marginals
from fasttrain.scores.passes import Passes

MAX_ITERATIONS = 2000
FIRST_EPS = 1.0
# Levels before the last only have to come near: their result is a start, not an answer.
COARSE_TOLERANCE = 1e-2
COARSE_ITERATIONS = 100
# Steps are lengthened by this factor: a third fewer iterations; given up where the error grows instead of shrinking.
OVER_RELAXATION = 1.5


@dataclass(frozen=True)
class SinkhornResult:
    """What `solve` found.

    Attributes:
        v: (C,) float64 class dual at `eps`; -inf for classes left out.
        eps: temperature of the plan.
        iterations: passes over the scores, all levels together.
        converged: whether `residual` came down to the tolerance.
        residual: how far v is from its optimum, as a share of N (`dual.residual`).
        marginal_error: summed violation of the bounds over N, or distance to the wished counts where they have a price;
            with a largest shift it may stay above the tolerance in a converged solution.
        dual_gap: how far the plan's objective is from the dual's, in nats a sample (0 at the optimum).
        dual: the dual objective in nats a sample: an upper bound of every plan's objective; NaN on a GPU.
        capped: number of classes at the largest shift.
        sums: (C,) float64 column sums of the plan.
    """

    v: np.ndarray
    eps: float
    iterations: int
    converged: bool
    residual: float
    marginal_error: float
    dual_gap: float
    dual: float
    capped: int
    sums: np.ndarray

    @property
    def potential(self) -> np.ndarray:
        """(C,) float64 eps * v: what is added to the scores, in nats."""
        return self.eps * self.v


def solve(
    passes: Passes,
    marginals: Marginals,
    *,
    eps: float = 0.2,
    tolerance: float = 1e-3,
    max_iterations: int = MAX_ITERATIONS,
) -> SinkhornResult:
    """Solve to `tolerance`, reaching `eps` by halving from 1 with warm starts.

    Args:
        passes: over the scores.
        marginals: what the column sums are to keep to.
        eps: temperature; small ones need many iterations.
        tolerance: largest residual, as a share of N.
        max_iterations: at the last temperature.

    Raises:
        ScoresError: infeasible bounds, a sample whose only possible classes take no sample, or a class that must take
            samples and is possible for none.
    """
    if not eps > 0:
        raise ScoresError(f"eps must be above 0, not {eps}")
    samples = passes.samples
    marginals.check(samples)
    v, iterations, before = dual.start(marginals), 0, FIRST_EPS
    for level in _levels(eps):
        v = v * (before / level)  # the potential eps * v is what carries over
        last, before = level == eps, level
        target = tolerance if last else max(tolerance, COARSE_TOLERANCE)
        limit = max_iterations if last else COARSE_ITERATIONS
        least, length = np.inf, OVER_RELAXATION
        for done in range(1, limit + 1):
            sums, normalisers = passes.sums(v, level)
            if not iterations:
                _refuse_starved(passes, sums, marginals)
            iterations += 1
            left = dual.residual(v, sums, marginals, samples, level)
            if left <= target or (done == limit and last):
                break
            length = 1.0 if left > 2 * least else length
            least = min(least, left)
            v = dual.step(v, sums, marginals, samples, level, length)
    return SinkhornResult(
        v=v,
        eps=eps,
        iterations=iterations,
        converged=left <= tolerance,
        residual=left,
        marginal_error=dual.violation(sums, marginals, samples),
        dual_gap=eps * dual.gap(v, sums, marginals, eps) / samples,
        dual=eps * (normalisers + dual.bound_term(v, marginals, eps)) / samples,
        capped=dual.capped(v, marginals, eps),
        sums=sums,
    )


def _levels(eps: float) -> list[float]:
    """Temperatures from the first to `eps`, each half of the one before."""
    levels, level = [], FIRST_EPS
    while level > eps:
        levels.append(level)
        level /= 2
    return [*levels, eps]


def _refuse_starved(passes: Passes, sums: np.ndarray, marginals: Marginals) -> None:
    """A sum of 0 can also be one that is too small to hold, so the scores themselves are looked at."""
    suspects = np.flatnonzero((sums <= 0) & (marginals.lower > 0))
    if len(suspects):
        starved = suspects[~passes.possible(suspects)]
        if len(starved):
            raise ScoresError(
                f"class {starved[0]} ({len(starved)} such) must take samples but has no probability in any row; give "
                "it a prior of 0"
            )
