"""The heuristic that won ACCV 2022's webly-supervised challenge, exactly as published: a baseline, with its faults.

Classes that were predicted fewer than K times take the samples that score highest for them among all others. Its
faults are kept on purpose: a sample can be taken several times (the last class wins), a class that is taken from can
fall below K, there is no upper bound, scores of different classes are compared raw, and the result depends on the order
of the classes. `fasttrain.scores.sinkhorn` has none of these.
"""

import numpy as np


def greedy_k(probs: np.ndarray, k: int) -> np.ndarray:
    """(N,) int32 labels: argmax, then each class with n < k samples takes its k - n best of the others'.

    Args:
        probs: (N, C) probabilities of the ensemble.
        k: samples that a class should have at least.

    Classes are served grouped by n, in the order in which each n first appears among the classes.
    """
    predicted = probs.argmax(1)
    labels = predicted.copy()
    counts = np.bincount(predicted, minlength=probs.shape[1])
    groups = dict.fromkeys(int(count) for count in counts if count < k)
    for count in groups:
        for column in np.flatnonzero(counts == count):
            scores = np.where(predicted == column, -np.inf, probs[:, column])
            taken = np.argsort(-scores, kind="stable")[: k - count]
            labels[taken] = column
    return labels.astype(np.int32)


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
