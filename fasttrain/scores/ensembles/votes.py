"""Ensembles that look at the order of the classes only: rank averaging, and votes weighted by agreement."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from fasttrain.base.process import available_cores
from fasttrain.scores.ensembles.joined import Joined

# Rows whose votes are compared pair by pair in one go.
BLOCK_ROWS = 1 << 14
# Scores that a thread ranks in one go: they and their copies stay in the cache.
RANKED_ENTRIES = 1 << 17


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
    step = max(1, RANKED_ENTRIES // columns)
    with ThreadPoolExecutor(available_cores()) as pool:  # sorting lets other threads run
        for block in joined.blocks():
            total = np.zeros((block.stop - block.start, columns))
            parts = [slice(start, start + step) for start in range(0, len(total), step)]
            for number, weight in enumerate(weights):
                scores = joined.scores(number, block)

                def add(part: slice, scores: np.ndarray = scores, weight: float = weight) -> None:
                    total[part] += weight * mean_ranks(scores[part])  # noqa: B023  # done before the next block

                list(pool.map(add, parts))
            yield block, total / (columns * (columns + 1) / 2)


def mean_ranks(scores: np.ndarray) -> np.ndarray:
    """(n, C) float64 rank of each score in its row from 1 to C, equal ones the mean of theirs.

    Args:
        scores: (n, C) float16 or float32, no NaN among them.

    A score and its column are one whole number, so that one plain sort gives the order and what is equal.
    """
    rows, columns = scores.shape
    keys, shift = _sortable(scores)
    keys <<= shift
    keys |= np.arange(columns, dtype=keys.dtype)
    keys.sort(1)
    place = (keys & keys.dtype.type((1 << shift) - 1)).astype(np.intp)
    place += np.arange(rows)[:, None] * columns
    keys >>= shift
    starts = np.ones(scores.shape, bool)
    np.not_equal(keys[:, 1:], keys[:, :-1], out=starts[:, 1:])
    first = np.flatnonzero(starts)
    equal = np.diff(first, append=scores.size)
    ranks = np.empty(scores.size)
    ranks[place.reshape(-1)] = np.repeat(first % columns + (equal + 1) / 2, equal)
    return ranks.reshape(rows, columns)


def _sortable(scores: np.ndarray) -> tuple[np.ndarray, int]:
    """(n, C) whole numbers that are ordered as the scores are, and how many bits are free above them for the column."""
    narrow = scores.dtype == np.float16 and scores.shape[1] <= 1 << 16
    values = (scores if narrow else scores.astype(np.float32, copy=False)) + scores.dtype.type(0)  # no -0
    signed, bits = (np.int16, 16) if narrow else (np.int32, 32)
    found = np.ascontiguousarray(values).view(signed)
    # Of negative ones the larger have the smaller bits; all others come after them.
    found = np.where(found < 0, ~found, found | np.iinfo(signed).min)
    unsigned = (np.uint16, np.uint32) if narrow else (np.uint32, np.uint64)
    return found.view(unsigned[0]).astype(unsigned[1]), bits


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


def count_ties(votes: np.ndarray, weights: np.ndarray) -> int:
    """Samples where several labels have most votes, of which the lowest counts.

    Args:
        votes: (N, M) int32 labels.
        weights: (M,) of the voters.
    """
    tied = 0
    for start in range(0, len(votes), BLOCK_ROWS):
        block = votes[start : start + BLOCK_ROWS]
        support = (block[:, :, None] == block[:, None, :]) @ weights
        leading = support >= support.max(1, keepdims=True) * (1 - 1e-9)
        lowest = np.where(leading, block, np.iinfo(block.dtype).max).min(1)
        highest = np.where(leading, block, -1).max(1)
        tied += int((lowest < highest).sum())
    return tied


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
