"""From a transport plan to one label a sample: greedily, within whole bounds."""

import numpy as np

from fasttrain.kernels.assign import Assigned
from fasttrain.scores.redistribution.passes import Passes

# Best classes of a sample that are looked at before its whole row is.
CANDIDATES = 32


def round_greedy(
    passes: Passes, potential: np.ndarray, found: Assigned, lower: np.ndarray, upper: np.ndarray
) -> np.ndarray:
    """(N,) int32 labels that keep the bounds: surest samples first, each in its best class that still has room.

    Args:
        passes: over the scores S of all N rows.
        potential: (C,) nats that make the scores of classes comparable; -inf for closed ones.
        found: the assignment under this potential, with margins and `top_classes`.
        lower, upper: (C,) int64 bounds that whole counts can keep (`Marginals.whole`).

    A class takes no more than its upper bound; a place is kept for each sample that lower bounds still ask for.
    """
    assert found.top_classes is not None
    samples, classes = len(found.label), len(upper)
    counts, need, room = [0] * classes, lower.tolist(), upper.tolist()
    owed, left = sum(need), samples
    labels = np.empty(samples, np.int32)
    best = found.top_classes.tolist()
    for row in np.argsort(-found.margin, kind="stable").tolist():
        # Once every sample that is left is owed to a class below its lower bound, only those have room.
        limit = need if owed == left else room
        label = next((column for column in best[row] if counts[column] < limit[column]), None)
        if label is None:
            label = _best_in_row(passes.values(np.array([row]))[0] + potential, np.array(counts) < np.array(limit))
        owed -= counts[label] < need[label]
        left -= 1
        counts[label] += 1
        labels[row] = label
    return labels


def _best_in_row(values: np.ndarray, room: np.ndarray) -> int:
    """Best column that has room; the first one where all of them have probability 0."""
    return int(np.where(room, np.maximum(values, np.finfo(np.float64).min), -np.inf).argmax())
