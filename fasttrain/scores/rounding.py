"""From a transport plan to one label a sample."""

import numpy as np

from fasttrain.base.errors import ScoresError
from fasttrain.scores.sinkhorn import Marginals

# Slots of the square assignment problem: more take minutes and gigabytes.
EXACT_LIMIT = 40_000_000
MARGIN_ROWS = 4096


def round_argmax(priced: np.ndarray) -> np.ndarray:
    """(N,) int32 most probable class of each row of the plan; counts keep the bounds only about."""
    return priced.argmax(1).astype(np.int32)


def whole_bounds(marginals: Marginals, samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Bounds (C,) int64 that whole counts can keep: rounded inwards under intervals, to sum N under equality."""
    if np.array_equal(marginals.lower, marginals.upper):
        counts = np.floor(marginals.lower).astype(np.int64)
        # Largest remainders first; the stable sort makes ties go to the first classes.
        order = np.argsort(-(marginals.lower - counts), kind="stable")
        counts[order[: samples - int(counts.sum())]] += 1
        return counts, counts
    return np.ceil(marginals.lower - 1e-9).astype(np.int64), np.floor(marginals.upper + 1e-9).astype(np.int64)


def round_greedy(priced: np.ndarray, marginals: Marginals) -> np.ndarray:
    """(N,) int32 labels that keep the bounds: surest samples first, each in its best class that still has room.

    Args:
        priced: (N, C) log-probabilities plus the dual potential, which makes scores of classes comparable.
        marginals: bounds of the counts.

    A class takes no more than its upper bound; a place is kept for each sample that lower bounds still ask for.

    Raises:
        ScoresError: no whole counts keep the bounds.
    """
    samples, classes = priced.shape
    lower, upper = _feasible(marginals, samples)
    counts = np.zeros(classes, np.int64)
    owed, left = int(lower.sum()), samples
    labels = np.empty(samples, np.int32)
    for row in np.argsort(-_margins(priced), kind="stable"):
        room = counts < upper
        if owed == left:  # every sample that is left is owed to a class below its lower bound
            room &= counts < lower
        label = int(np.where(room, priced[row], -np.inf).argmax()) if room.any() else 0
        if not room[label]:  # all that has room has probability 0
            label = int(np.flatnonzero(room)[0])
        owed -= counts[label] < lower[label]
        left -= 1
        counts[label] += 1
        labels[row] = label
    return labels


def _margins(priced: np.ndarray) -> np.ndarray:
    """(N,) lead of each row's best class over its second, block by block."""
    samples, classes = priced.shape
    margins = np.zeros(samples, priced.dtype)
    for start in range(0, samples if classes > 1 else 0, MARGIN_ROWS):
        top2 = np.partition(priced[start : start + MARGIN_ROWS], -2, axis=1)[:, -2:]
        margins[start : start + MARGIN_ROWS] = top2[:, 1] - top2[:, 0]
    return margins


def round_exact(log_probs: np.ndarray, marginals: Marginals) -> np.ndarray:
    """(N,) int32 labels of the largest summed log-probability within the bounds, by linear assignment.

    Each class has as many slots as its upper bound; those within the lower bound must be filled, which a price that
    outweighs all else sees to (Crouse, 2016, doi:10.1109/TAES.2016.140952, as in SciPy).

    Args:
        log_probs: (N, C), without the dual potential: with it, intervals would reward classes at their lower bound.
        marginals: bounds of the counts.

    Raises:
        ScoresError: too large, or no whole counts keep the bounds.
    """
    from scipy.optimize import linear_sum_assignment

    samples, classes = log_probs.shape
    lower, upper = _feasible(marginals, samples)
    upper = np.minimum(upper, samples)
    slots = np.repeat(np.arange(classes), upper)
    if samples * len(slots) > EXACT_LIMIT:
        raise ScoresError(
            f"exact rounding of {samples} samples into {len(slots)} places is too large; use --round greedy"
        )
    # Log-probabilities of 0 are far below any other but finite, because the solver takes no infinities.
    # float64, because the price of a place that must be filled would swallow float32's digits.
    floor = float(log_probs[np.isfinite(log_probs)].min()) - 50.0
    value = np.where(np.isfinite(log_probs), log_probs, floor).astype(np.float64)
    bonus = (value.max() - value.min() + 1.0) * samples
    within = np.arange(len(slots)) - np.repeat(np.cumsum(upper) - upper, upper)
    must = within < lower[slots]
    _, chosen = linear_sum_assignment(value[:, slots] + np.where(must, bonus, 0.0), maximize=True)
    return slots[chosen].astype(np.int32)


def _feasible(marginals: Marginals, samples: int) -> tuple[np.ndarray, np.ndarray]:
    lower, upper = whole_bounds(marginals, samples)
    if (lower > upper).any() or lower.sum() > samples or upper.sum() < samples:
        raise ScoresError(
            "no whole numbers of samples lie within the bounds; widen them (--lower, --upper) or use --equality"
        )
    return lower, upper
