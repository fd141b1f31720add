"""Deals samples out: a seeded, stratified split into training and validation part, and shards of a list."""

import numpy as np
import xxhash

from fasttrain.base.errors import SourceError
from fasttrain.beton_build.trailer import encode_id


def split_rows(ids: list[str], labels: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Choose the validation part: of each class its share, by the method of the largest remainder.

    Which samples are chosen depends on their ids, labels and the seed, not on their order: within a class, those with
    the smallest xxh3-64 (seeded) of their id. A class always keeps at least one sample for training. Unlabelled
    samples are split as a class of their own.

    Args:
        ids: N unique ids.
        labels: (N,) int64.
        fraction: share of the validation part, 0 <= fraction < 1.

    Returns:
        Rows of the training part and of the validation part, int64, each ascending.
    """
    hashes = np.fromiter((xxhash.xxh3_64_intdigest(encode_id(name), seed) for name in ids), np.uint64, len(ids))
    classes, members = np.unique(labels, return_inverse=True)
    counts = np.bincount(members, minlength=len(classes))
    wanted = _shares(counts, fraction, classes, seed)
    order = np.lexsort((hashes, members))  # class by class, within each by hash
    place = np.arange(len(ids)) - np.repeat(np.cumsum(counts) - counts, counts)
    chosen = np.zeros(len(ids), bool)
    chosen[order] = place < np.repeat(wanted, counts)
    return np.flatnonzero(~chosen), np.flatnonzero(chosen)


def shard_rows(count: int, index: int, shards: int) -> np.ndarray:
    """Rows of the `index`-th of `shards` consecutive parts of `count` samples, which differ by at most one in length.

    Raises:
        SourceError: there is no such shard, or it would be empty.
    """
    if not 0 <= index < shards:
        raise SourceError(
            f"there is no shard {index}/{shards}: they are counted from 0/{shards} to {shards - 1}/{shards}"
        )
    if shards > count:
        raise SourceError(f"{count} samples cannot be dealt to {shards} shards; use {count} or fewer")
    return np.arange(count * index // shards, count * (index + 1) // shards)


def _shares(counts: np.ndarray, fraction: float, classes: np.ndarray, seed: int) -> np.ndarray:
    """How many samples of each class to choose: `fraction` of the whole, each class within one of its exact share."""
    exact = counts * fraction
    shares = np.floor(exact).astype(np.int64)
    most = np.maximum(counts - 1, 0)
    shares = np.minimum(shares, most)
    missing = round(float(counts.sum() * fraction)) - int(shares.sum())
    # Equal remainders are common (classes of equal size): a hash decides, so that no end of the class list is favoured.
    ties = np.array([xxhash.xxh3_64_intdigest(str(int(number)).encode(), seed) for number in classes], np.uint64)
    order = np.lexsort((ties, -(exact - np.floor(exact))))
    for place in order[shares[order] < most[order]][: max(0, missing)]:
        shares[place] += 1
    return shares
