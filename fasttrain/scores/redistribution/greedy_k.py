"""The heuristic that won ACCV 2022's webly-supervised challenge, exactly as published: a baseline, with its faults.

Classes that were predicted fewer than K times take the samples that score highest for them among all others. Its
faults are kept on purpose: a sample can be taken several times (the last class wins), a class that is taken from can
fall below K, there is no upper bound, scores of different classes are compared raw, and the result depends on the order
of the classes. `fasttrain.scores.redistribution.sinkhorn` has none of these.
"""

from collections.abc import Iterable

import numpy as np

# What a class's own samples count as: it takes them last.
OWN = -1.0


def greedy_k(probs: np.ndarray, k: int) -> np.ndarray:
    """(N,) int32 labels: argmax, then each class with n < k samples takes its k - n best of the others'.

    Args:
        probs: (N, C) probabilities of the ensemble.
        k: samples that a class should have at least.

    Classes are served grouped by n, in the order in which each n first appears among the classes.
    """
    return greedy_k_in_blocks(probs.argmax(1), [(slice(0, len(probs)), probs)], probs.shape[1], k)


def greedy_k_in_blocks(
    predicted: np.ndarray, blocks: Iterable[tuple[slice, np.ndarray]], classes: int, k: int
) -> np.ndarray:
    """As `greedy_k`, of probabilities that come block after block.

    Args:
        predicted: (N,) argmax of each row.
        blocks: consecutive rows that cover all, with their probabilities (n, C).
        classes: C.
        k: samples that a class should have at least.
    """
    labels = predicted.astype(np.int32)
    counts = np.bincount(predicted, minlength=classes)
    columns = np.flatnonzero(counts < k)
    best = [_Best(min(k - int(counts[column]), len(predicted))) for column in columns]
    for rows, probs in blocks:
        part = np.ascontiguousarray(probs.T[columns])
        own = predicted[rows] == columns[:, None]
        part[own] = OWN
        for one, scores in zip(best, part, strict=True):
            one.add(scores, rows.start)
    for count in dict.fromkeys(counts[columns].tolist()):
        for number in np.flatnonzero(counts[columns] == count).tolist():
            labels[best[number].rows] = columns[number]
    return labels


class _Best:
    """The `size` best of the rows seen so far, and the first ones of equals."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._scores, self.rows = np.empty(0), np.empty(0, np.int64)

    def add(self, scores: np.ndarray, first: int) -> None:
        """See rows from number `first` on, all of them behind those seen before."""
        full = len(self.rows) == self._size
        better = np.flatnonzero(scores > self._scores[-1]) if full else np.arange(len(scores))
        if not len(better):
            return
        found = np.append(self._scores, scores[better])
        rows = np.append(self.rows, first + better)
        order = np.argsort(-found, kind="stable")[: self._size]
        self._scores, self.rows = found[order], rows[order]


def greedy_k_corrected(probs: np.ndarray, k: int) -> np.ndarray:
    """(N,) int32 labels of the same idea without the order of classes, samples taken twice or donors left short.

    Of all pairs of a class with fewer than k samples and a sample of another class, the most probable comes first; it
    is taken where the class still wants one, the sample has not been taken, and its own class keeps k.

    Args:
        probs: (N, C) probabilities of the ensemble.
        k: samples that a class should have at least.
    """
    labels = probs.argmax(1)
    counts = np.bincount(labels, minlength=probs.shape[1])
    wanting = np.flatnonzero(counts < k)
    rows = np.flatnonzero(counts[labels] > k)
    taken = np.zeros(len(labels), bool)
    for pair in np.argsort(-probs[np.ix_(rows, wanting)], axis=None, kind="stable").tolist():
        row, column = int(rows[pair // len(wanting)]), int(wanting[pair % len(wanting)])
        if counts[column] < k and not taken[row] and counts[labels[row]] > k:
            counts[labels[row]] -= 1
            counts[column] += 1
            labels[row], taken[row] = column, True
    return labels.astype(np.int32)
