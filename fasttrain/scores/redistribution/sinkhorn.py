"""Entropic optimal transport of samples to classes, in the log domain, on the class dual alone.

``max <P, S> + eps H(P)`` over plans P >= 0 whose rows sum to 1 and whose column sums keep to given marginals (S: (N, C)
scores, log-probabilities up to a constant a row). The solution is ``P_i = softmax(S_i / eps + v)``; an iteration is one
pass over S for the column sums c and an update of the C numbers v (`dual`, beside this module). Over-relaxed updates
under Anderson acceleration take a half to a seventh of the passes that plain ones do.
"""

from dataclasses import dataclass, replace

import numpy as np

from fasttrain.base.errors import ScoresError
from fasttrain.scores.redistribution import dual
from fasttrain.scores.redistribution.acceleration import Anderson
from fasttrain.scores.redistribution.marginals import Marginals
from fasttrain.scores.redistribution.passes import Sums

MAX_ITERATIONS = 2000
FIRST_EPS = 1.0
# Levels before the last only have to come near: their result is a start, not an answer.
COARSE_TOLERANCE = 1e-2
COARSE_ITERATIONS = 100
# Steps are lengthened by this factor before they are accelerated.
OVER_RELAXATION = 1.5
# Rounding of the dual objective, in units of eps, a sample.
RISE = 1e-6


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
        dual: the dual objective in nats a sample: an upper bound of every plan's objective.
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
    passes: Sums,
    marginals: Marginals,
    *,
    eps: float = 0.2,
    tolerance: float = 1e-3,
    max_iterations: int = MAX_ITERATIONS,
    start: tuple[np.ndarray, float] | None = None,
) -> SinkhornResult:
    """Solve to `tolerance`, reaching `eps` by halving from 1 with warm starts.

    Args:
        passes: over the scores.
        marginals: what the column sums are to keep to.
        eps: temperature; small ones need many iterations.
        tolerance: largest residual, as a share of N.
        max_iterations: at the last temperature.
        start: (C,) dual v and its temperature, to go on from; -inf for classes that take no sample.

    Raises:
        ScoresError: infeasible bounds, a sample whose only possible classes take no sample, or a class that must take
            samples and is possible for none.
    """
    if not eps > 0:
        raise ScoresError(f"eps must be above 0, not {eps}")
    samples = passes.samples
    marginals.check(samples)
    v, before = (dual.start(marginals), FIRST_EPS) if start is None else start
    iterations = 0
    for level in _levels(before, eps):
        v = v * (before / level)  # the potential eps * v is what carries over
        last, before = level == eps, level
        target = tolerance if last else max(tolerance, COARSE_TOLERANCE)
        end = _descend(passes, v, marginals, level, target, max_iterations if last else COARSE_ITERATIONS)
        v, iterations = end.v, iterations + end.passes
    return SinkhornResult(
        v=v,
        eps=eps,
        iterations=iterations,
        converged=end.residual <= tolerance,
        residual=end.residual,
        marginal_error=dual.violation(end.sums, marginals, samples),
        dual_gap=eps * dual.gap(v, end.sums, marginals, eps) / samples,
        dual=eps * end.value / samples,
        capped=dual.capped(v, marginals, eps),
        sums=end.sums,
    )


@dataclass(frozen=True)
class _Point:
    """A dual v after so many passes, with the column sums, residual and dual objective (in units of eps) there."""

    v: np.ndarray
    passes: int
    sums: np.ndarray
    residual: float
    value: float


def _descend(passes: Sums, v: np.ndarray, marginals: Marginals, eps: float, target: float, limit: int) -> _Point:
    """Iterate at one temperature until the residual is at the target, or `limit` passes are done.

    An accelerated step that makes the dual worse is taken back, for a plain update from where it began, which cannot.
    """
    samples, open_ = passes.samples, marginals.open
    memory, good, plain = Anderson(), None, None
    for done in range(1, limit + 1):
        sums, normalisers = passes.sums(v, eps)
        if done == 1:
            _refuse_starved(passes, sums, marginals)
        left = dual.residual(v, sums, marginals, samples, eps)
        point = _Point(v, done, sums, left, normalisers + dual.bound_term(v, marginals, eps))
        if left <= target:
            break
        if good is not None and plain is not None and _worse(point, good, samples):
            v, plain = plain, None
            memory.forget()
            continue
        good, plain = point, dual.step(v, sums, marginals, samples, eps)
        longer = dual.step(v, sums, marginals, samples, eps, OVER_RELAXATION)
        v = dual.placed(memory.next(v[open_], longer[open_]), marginals, samples, eps)
    else:
        if good is not None and _worse(point, good, samples):
            point = replace(good, passes=limit)
    return point


def _worse(point: _Point, good: _Point, samples: int) -> bool:
    """Whether the dual rose, by more than its rounding."""
    return point.value > good.value + RISE * samples


def _levels(level: float, eps: float) -> list[float]:
    """Temperatures from `level` down to `eps`, each half of the one before."""
    levels = []
    while level > eps:
        levels.append(level)
        level /= 2
    return [*levels, eps]


def _refuse_starved(passes: Sums, sums: np.ndarray, marginals: Marginals) -> None:
    """A sum of 0 can also be one that is too small to hold, so the scores themselves are looked at."""
    suspects = np.flatnonzero((sums <= 0) & (marginals.lower > 0))
    if len(suspects):
        starved = suspects[~passes.possible(suspects)]
        if len(starved):
            raise ScoresError(
                f"class {starved[0]} ({len(starved)} such) must take samples but has no probability in any row; give "
                "it a prior of 0"
            )
