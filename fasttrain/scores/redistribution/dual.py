"""Arithmetic on the C numbers v of the class dual: its update, its constant, its residual and its gap.

With s = c exp(-v), what a column would get at v = 0, an update solves each class's part of the dual alone (Cuturi,
NeurIPS 2013; Chizat et al., arXiv 1607.05816; Shi, Shen & Yan, AAAI 2024, arXiv 2401.11418):

* given counts b: ``log b - log s``
* wished counts, strength rho: ``rho / (rho + eps) * (log b - log s)``
* an interval [L, H]: ``clip(0, log L - log s, log H - log s)``, raised only if s is too little, lowered if too much
* with a largest shift m: any of these, clipped to ``+-m / eps``
"""

import numpy as np

from fasttrain.scores.redistribution.marginals import Marginals

_TINY = np.finfo(np.float64).tiny
_LARGEST_EXPONENT = 700.0


def start(marginals: Marginals) -> np.ndarray:
    """(C,) float64 zeros, -inf for classes that take no sample."""
    return np.where(marginals.open, 0.0, -np.inf)


def step(
    v: np.ndarray, sums: np.ndarray, marginals: Marginals, samples: int, eps: float, length: float = 1.0
) -> np.ndarray:
    """The next dual: `length` times the update, between two exact searches along the direction that moves no sample.

    Args:
        v: (C,) float64, within ``+-max_shift / eps``; -inf for closed classes, which keep it.
        sums: (C,) float64 column sums of the plan of v.
        samples: N.
        eps: temperature.
        length: above 1 for over-relaxation.
    """
    v = centred(v, marginals, samples, eps)
    own = v[marginals.open]
    return placed(own + length * (update(v, sums, marginals, eps) - own), marginals, samples, eps)


def placed(values: np.ndarray, marginals: Marginals, samples: int, eps: float) -> np.ndarray:
    """(C,) dual of the open classes' values, brought within the largest shift and to the best constant."""
    v = np.full(len(marginals.upper), -np.inf)
    v[marginals.open] = _clipped(values, marginals, eps)
    return centred(v, marginals, samples, eps)


def update(v: np.ndarray, sums: np.ndarray, marginals: Marginals, eps: float) -> np.ndarray:
    """(open classes,) float64 best v of each class while the other side of the dual stays."""
    open_ = marginals.open
    log_s = np.log(np.maximum(sums[open_], _TINY)) - v[open_]
    with np.errstate(divide="ignore"):
        low, high = np.log(marginals.lower[open_]) - log_s, np.log(marginals.upper[open_]) - log_s
    if marginals.relax is not None:
        best = marginals.relax / (marginals.relax + eps) * high
    else:
        best = high if marginals.equality else np.minimum(np.maximum(0.0, low), high)
    return _clipped(best, marginals, eps)


def centred(v: np.ndarray, marginals: Marginals, samples: int, eps: float) -> np.ndarray:
    """v plus the constant that maximises the dual; under given counts, where none does, the one that centres v.

    A constant does not change the plan, so this costs no pass over the scores; but updates find it only in many small
    steps (5 to 9 times as many iterations at the default bounds). For intervals the dual is piecewise linear in it; for
    wished counts see Sejourne, Vialard & Peyre, AISTATS 2022 (translation-invariant Sinkhorn).
    """
    open_ = marginals.open
    values = v[open_]
    if marginals.relax is not None:
        weight = eps / marginals.relax
        exponent = np.log(marginals.upper[open_] / samples) - weight * values
        top = exponent.max()
        constant = (top + np.log(np.exp(exponent - top).sum())) / weight
    elif marginals.equality:
        constant = -values.mean() if marginals.max_shift is None else -(values.max() + values.min()) / 2
    else:
        order = np.argsort(-values, kind="stable")
        # Slope of the dual just after the class of each rank has come up to 0.
        slope = marginals.upper.sum() - samples - np.cumsum((marginals.upper - marginals.lower)[open_][order])
        turn = int(np.argmax(slope <= 0)) if slope[-1] <= 0 else len(order) - 1
        constant = -values[order[turn]]
    if marginals.max_shift is not None:  # concave in the constant, so the nearest one that the limit allows is best
        limit = marginals.max_shift / eps
        constant = min(max(constant, -limit - values.min()), limit - values.max())
    return v + constant


def residual(v: np.ndarray, sums: np.ndarray, marginals: Marginals, samples: int, eps: float) -> float:
    """How far v is from its optimum: what the classes' sums would move by their own updates, as a share of N.

    Under given counts this is the summed violation; under intervals it also holds those classes that are raised or
    lowered without need. A class at its largest shift is where it should be.
    """
    open_ = marginals.open
    c = np.maximum(sums[open_], _TINY)
    change = update(v, sums, marginals, eps) - v[open_]
    return float(np.abs(c - c * np.exp(np.minimum(change, _LARGEST_EXPONENT))).sum() / samples)


def violation(sums: np.ndarray, marginals: Marginals, samples: int) -> float:
    """Summed violation of the bounds, or distance to the wished counts, as a share of the samples."""
    below = np.maximum(marginals.lower - sums, 0).sum()
    above = np.maximum(sums - marginals.upper, 0).sum()
    return float((below + above) / samples)


def capped(v: np.ndarray, marginals: Marginals, eps: float) -> int:
    """Number of classes at the largest shift."""
    if marginals.max_shift is None:
        return 0
    return int((np.abs(v[marginals.open]) >= marginals.max_shift / eps * (1 - 1e-9)).sum())


def bound_term(v: np.ndarray, marginals: Marginals, eps: float) -> float:
    """The dual's part beside the rows' log-normalisers, in units of eps: ``dual = sum_i lse_i + bound_term(v)``."""
    return float(_support(v[marginals.open], marginals, eps).sum())


def gap(v: np.ndarray, sums: np.ndarray, marginals: Marginals, eps: float) -> float:
    """Dual minus primal objective of the plan that v gives, in units of eps; 0 at the optimum.

    The rows' parts are equal in both, ``sum_i lse_i``; a class's are ``support(v) + v c + price(c)``, by Fenchel and
    Young not negative where c keeps its bounds or where missing them has a price; elsewhere absolute values keep it so.
    """
    open_ = marginals.open
    offset, c = v[open_], sums[open_]
    if marginals.relax is not None:
        wished = np.log(np.maximum(c, _TINY) / marginals.upper[open_])
        dearest = _clipped(-wished * marginals.relax / eps, marginals, eps)
        price = -dearest * c - _support(dearest, marginals, eps)
    else:
        limit = 0.0 if marginals.max_shift is None else marginals.max_shift / eps
        price = limit * (np.maximum(marginals.lower[open_] - c, 0) + np.maximum(c - marginals.upper[open_], 0))
    return float(np.abs(_support(offset, marginals, eps) + offset * c + price).sum())


def _support(offset: np.ndarray, marginals: Marginals, eps: float) -> np.ndarray:
    open_ = marginals.open
    if marginals.relax is None:
        return np.maximum(-offset * marginals.lower[open_], -offset * marginals.upper[open_])
    strength = marginals.relax / eps
    return strength * marginals.upper[open_] * np.expm1(np.minimum(-offset / strength, _LARGEST_EXPONENT))


def _clipped(values: np.ndarray, marginals: Marginals, eps: float) -> np.ndarray:
    if marginals.max_shift is None:
        return values
    limit = marginals.max_shift / eps
    return np.clip(values, -limit, limit)
