"""Ensembles that look at the order of the classes only: rank averaging, and votes weighted by agreement."""

from collections.abc import Iterator

import numpy as np

from fasttrain.scores.joined import Joined

# Rows whose votes are compared pair by pair in one go.
BLOCK_ROWS = 1 << 14


def rank_blocks(joined: Joined, weights: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Weighted mean of each class's rank in its row (Borda count), in row blocks.

    The least likely class has rank 1, the likeliest C, equal ones the mean of their ranks. The sum is scaled such that
    a row adds up to 1: a share, not a calibrated probability.

    Args:
        joined: M tables of N samples and C classes, of any kinds.
        weights: (M,) that sum to 1.

    Yields:
        Rows, and (n, C) float64 shares of theirs.
    """
    columns = len(joined.classes)
    for block in joined.blocks():
        total = np.zeros((block.stop - block.start, columns))
        for number, weight in enumerate(weights):
            total += weight * mean_ranks(joined.scores(number, block))
        yield block, total / (columns * (columns + 1) / 2)


def mean_ranks(scores: np.ndarray) -> np.ndarray:
    """(n, C) float64 rank of each score in its row from 1 to C, equal ones the mean of theirs."""
    order = np.argsort(scores, axis=1)
    ordered = np.take_along_axis(scores, order, 1)
    place = np.arange(scores.shape[1])
    starts = np.ones(scores.shape, bool)
    starts[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    ends = np.ones(scores.shape, bool)
    ends[:, :-1] = starts[:, 1:]
    first = np.maximum.accumulate(np.where(starts, place, 0), 1)
    last = np.minimum.accumulate(np.where(ends, place, len(place))[:, ::-1], 1)[:, ::-1]
    ranks = np.empty(scores.shape)
    np.put_along_axis(ranks, order, (first + last) / 2 + 1, 1)
    return ranks


def agreement(votes: np.ndarray) -> np.ndarray:
    """(M,) share of the samples where each voter says what most say (the adaptive voting of the NICO challenge).

    Args:
        votes: (N, M) int32 labels. Where several labels have most votes, the lowest of them counts.
    """
    agreed = np.zeros(votes.shape[1])
    for start in range(0, len(votes), BLOCK_ROWS):
        block = votes[start : start + BLOCK_ROWS]
        support = (block[:, :, None] == block[:, None, :]).sum(2)
        leading = np.where(support == support.max(1, keepdims=True), block, np.iinfo(block.dtype).max)
        agreed += (block == leading.min(1, keepdims=True)).sum(0)
    return agreed / len(votes)


def vote_blocks(votes: np.ndarray, weights: np.ndarray, blocks: Iterator[slice], columns: int) -> Iterator[tuple]:
    """Each class's share of the votes, in row blocks.

    Args:
        votes: (N, M) int32 labels.
        weights: (M,) that sum to 1.
        blocks: row blocks.
        columns: C.

    Yields:
        Rows, and (n, C) float64 shares of theirs.
    """
    for block in blocks:
        shares = np.zeros((block.stop - block.start, columns))
        rows = np.arange(len(shares))
        for voter, weight in enumerate(weights):
            shares[rows, votes[block, voter]] += weight
        yield block, shares
