"""Entropic optimal transport of samples to classes, in the log domain, on the class dual alone.

``max <P, S> + eps H(P)`` over plans P >= 0 whose rows sum to 1 and whose column sums lie in given intervals (S: (N, C)
log-probabilities). The solution is ``P_i = softmax(S_i / eps + v)``; an iteration is one pass over S for the column
sums c and an update of the C numbers v (Cuturi, NeurIPS 2013; range constraints: Chizat et al., arXiv 1607.05816, and
Shi, Shen & Yan, AAAI 2024, arXiv 2401.11418).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from fasttrain.base.errors import ScoresError
from fasttrain.kernels.softmax_colsum import softmax_colsum

MAX_ITERATIONS_A_LEVEL = 2000
FIRST_EPS = 1.0
# Levels before the last only have to come near: their result is a start, not an answer.
COARSE_TOLERANCE = 1e-2
CHECK_ROWS = 4096
# Steps are lengthened by this factor: a third fewer iterations; given up where the error grows instead of shrinking.
OVER_RELAXATION = 1.5


@dataclass(frozen=True)
class Marginals:
    """Bounds of the column sums.

    Attributes:
        lower, upper: (C,) float64 with 0 <= lower <= upper. A class whose upper bound is 0 takes no sample.
    """

    lower: np.ndarray
    upper: np.ndarray

    def check(self, samples: int) -> None:
        """Raise a ScoresError if no plan for `samples` rows can keep the bounds."""
        if not (np.isfinite(self.lower).all() and np.isfinite(self.upper).all() and (self.lower >= 0).all()):
            raise ScoresError("bounds of the class counts must be numbers of at least 0")
        if (self.lower > self.upper).any():
            column = int(np.flatnonzero(self.lower > self.upper)[0])
            raise ScoresError(
                f"class {column} is to get at least {self.lower[column]:g} and at most {self.upper[column]:g} samples"
            )
        slack = 1e-9 * samples
        if self.lower.sum() > samples + slack:
            raise ScoresError(f"the lower bounds ask for {self.lower.sum():g} samples, there are {samples}; lower them")
        if self.upper.sum() < samples - slack:
            raise ScoresError(f"the upper bounds leave room for {self.upper.sum():g} of {samples} samples; raise them")


@dataclass(frozen=True)
class SinkhornResult:
    """What `solve` found.

    Attributes:
        potential: (C,) float64 eps * v: what is added to the log-probabilities; -inf for classes left out.
        eps: temperature of the plan.
        iterations: passes over the scores, all levels together.
        converged: whether `marginal_error` came down to the tolerance.
        marginal_error: summed violation of the bounds over N.
        dual_gap: how far the plan's objective is from the dual's, in nats a sample (0 at the optimum).
        sums: (C,) float64 column sums of the plan.
    """

    potential: np.ndarray
    eps: float
    iterations: int
    converged: bool
    marginal_error: float
    dual_gap: float
    sums: np.ndarray


def solve(
    log_probs: np.ndarray,
    marginals: Marginals,
    *,
    eps: float = 0.2,
    tolerance: float = 1e-3,
    column_sums: Callable[[np.ndarray, float], np.ndarray] | None = None,
) -> SinkhornResult:
    """Solve to `tolerance`, reaching `eps` by halving from 1 with warm starts.

    Args:
        log_probs: (N, C) float32 or float64; -inf allowed.
        marginals: bounds of the column sums.
        eps: temperature; small ones need many iterations.
        tolerance: largest summed violation of the bounds, as a share of N.
        column_sums: the pass over `log_probs`, (v, eps) → (C,) sums of the plan's columns; by default on the CPU.

    Raises:
        ScoresError: infeasible bounds, a sample whose only possible classes take no sample, or a class that must take
            samples and is possible for none.
    """
    if not eps > 0:
        raise ScoresError(f"eps must be above 0, not {eps}")
    samples, _ = log_probs.shape
    marginals.check(samples)
    closed = marginals.upper <= 0
    v = np.where(closed, -np.inf, 0.0)
    _refuse_impossible(log_probs, marginals)
    sums_at = column_sums or partial(softmax_colsum, log_probs)
    levels = [level for level in _halving(eps) if level > eps] + [eps]
    iterations, error, sums = 0, np.inf, np.zeros(len(v))
    for index, level in enumerate(levels):
        if index:
            v = v * (levels[index - 1] / level)  # the potential eps * v is what carries over
        target = tolerance if level == eps else max(tolerance, COARSE_TOLERANCE)
        least, step = np.inf, OVER_RELAXATION
        for done in range(1, MAX_ITERATIONS_A_LEVEL + 1):
            sums = sums_at(v, level)
            iterations += 1
            error = marginal_error(sums, marginals, samples)
            distance = max(error, _complementary(v, sums, marginals, samples))
            if distance <= target or done == MAX_ITERATIONS_A_LEVEL:
                break
            step = 1.0 if distance > 2 * least else step
            least = min(least, distance)
            v = _next(v, sums, marginals, samples, step)
    converged = error <= tolerance and _complementary(v, sums, marginals, samples) <= tolerance
    return SinkhornResult(
        potential=eps * v,
        eps=eps,
        iterations=iterations,
        converged=bool(converged),
        marginal_error=float(error),
        dual_gap=eps * _duality_gap(v, sums, marginals) / samples,
        sums=sums,
    )


def marginal_error(sums: np.ndarray, marginals: Marginals, samples: int) -> float:
    """Summed violation of the bounds, as a share of the samples."""
    below = np.maximum(marginals.lower - sums, 0).sum()
    above = np.maximum(sums - marginals.upper, 0).sum()
    return float((below + above) / samples)


def _halving(eps: float) -> list[float]:
    levels, level = [], FIRST_EPS
    while level > eps:
        levels.append(level)
        level /= 2
    return levels


def _next(v: np.ndarray, sums: np.ndarray, marginals: Marginals, samples: int, step: float) -> np.ndarray:
    """The next dual: a step of the update, between two exact searches along the direction that moves no sample."""
    start = _shifted(v, marginals, samples)
    stretched = np.full_like(v, -np.inf)
    open_ = marginals.upper > 0
    stretched[open_] = start[open_] + step * (_update(start, sums, marginals)[open_] - start[open_])
    return _shifted(stretched, marginals, samples)


def _shifted(v: np.ndarray, marginals: Marginals, samples: int) -> np.ndarray:
    """v plus the constant that maximises the dual, which is piecewise linear and concave in it.

    A constant does not change the plan, so this costs no pass over the scores; but the update, which wants v = 0 in
    classes within their bounds, finds the constant only in many small steps (5 to 9 times as many iterations at the
    default bounds).
    """
    if np.array_equal(marginals.lower, marginals.upper):
        return v
    open_ = marginals.upper > 0
    order = np.argsort(-v[open_], kind="stable")
    # Slope of the dual just after the class of each rank has come up to 0.
    slope = marginals.upper.sum() - samples - np.cumsum((marginals.upper - marginals.lower)[open_][order])
    turn = int(np.argmax(slope <= 0)) if slope[-1] <= 0 else len(order) - 1
    return v - v[open_][order[turn]]


def _update(v: np.ndarray, sums: np.ndarray, marginals: Marginals) -> np.ndarray:
    """``v = clip(0, log L - log s, log H - log s)`` with s = c exp(-v), then into the open classes' gauge.

    s is what a column would get at v = 0: it is raised only if that is too little, lowered only if too much.
    """
    open_ = marginals.upper > 0
    with np.errstate(divide="ignore"):
        log_s = np.log(np.maximum(sums[open_], np.finfo(np.float64).tiny)) - v[open_]
        low = np.log(marginals.lower[open_]) - log_s
        high = np.log(marginals.upper[open_]) - log_s
    updated = np.full_like(v, -np.inf)
    updated[open_] = np.minimum(np.maximum(0.0, low), high)
    if np.array_equal(marginals.lower, marginals.upper):
        # Under equality v is defined up to a constant; left alone it would drift.
        updated[open_] -= updated[open_].mean()
    return updated


def _complementary(v: np.ndarray, sums: np.ndarray, marginals: Marginals, samples: int) -> float:
    """How far the solution is from complementary slackness, as a share of the samples.

    A column that is raised (v > 0) must sit at its lower bound, one that is lowered at its upper bound; the distance
    counts as far as the column's sum would move if its v were let go.
    """
    if np.array_equal(marginals.lower, marginals.upper):
        return 0.0
    open_ = marginals.upper > 0
    offset, c = v[open_], sums[open_]
    free = c * np.exp(-offset)
    raised = np.where(offset > 0, np.minimum(c - marginals.lower[open_], c - free), 0.0)
    lowered = np.where(offset < 0, np.minimum(marginals.upper[open_] - c, free - c), 0.0)
    return float((np.maximum(raised, 0).sum() + np.maximum(lowered, 0).sum()) / samples)


def _duality_gap(v: np.ndarray, sums: np.ndarray, marginals: Marginals) -> float:
    """Dual minus primal objective of the plan that v gives, in units of eps.

    The dual is ``sum_i lse_i + sum_j max(-v_j L_j, -v_j H_j)``, the primal ``sum_i lse_i - sum_j v_j c_j``. Each
    class's part is not negative while its sum is within its bounds; absolute values keep it so within the tolerance.
    """
    open_ = marginals.upper > 0
    offset = v[open_]
    support = np.maximum(-offset * marginals.lower[open_], -offset * marginals.upper[open_])
    return float(np.abs(support + offset * sums[open_]).sum())


def _refuse_impossible(log_probs: np.ndarray, marginals: Marginals) -> None:
    closed = marginals.upper <= 0
    reachable = np.zeros(len(closed), bool)
    lost = np.empty(len(log_probs), bool)
    for start in range(0, len(log_probs), CHECK_ROWS):
        possible = np.isfinite(log_probs[start : start + CHECK_ROWS])
        reachable |= possible.any(0)
        lost[start : start + CHECK_ROWS] = ~possible[:, ~closed].any(1)
    if lost.any():
        raise ScoresError(
            f"row {int(np.flatnonzero(lost)[0])} ({int(lost.sum())} such) has no probability but in classes that may "
            "take no sample; give these a prior above 0"
        )
    starved = ~reachable & (marginals.lower > 0)
    if starved.any():
        raise ScoresError(
            f"class {int(np.flatnonzero(starved)[0])} ({int(starved.sum())} such) must take samples but has no "
            "probability in any row; give it a prior of 0"
        )
