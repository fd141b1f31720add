"""Deals samples out: a seeded, stratified split into training and validation part, and shards of a list."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xxhash

from fasttrain.base.errors import SourceError
from fasttrain.beton_build.labels import shown
from fasttrain.beton_build.trailer import encode_id

FOLDER = "folder"


def split_rows(
    ids: list[str], labels: np.ndarray, fraction: float, seed: int, groups: Sequence[Any] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Choose the validation part: of each class its share, by the method of the largest remainder.

    Which samples are chosen depends on their ids, labels and the seed, not on their order: within a class, those with
    the smallest xxh3-64 (seeded) of their id. A class always keeps at least one sample for training. Unlabelled
    samples are split as a class of their own.

    Args:
        ids: N unique ids.
        labels: (N,) int64.
        fraction: share of the validation part, 0 <= fraction < 1.
        groups: of each sample, as its domain; each class's samples of one group are split as a class of their own.

    Returns:
        Rows of the training part and of the validation part, int64, each ascending.
    """
    if groups is not None:
        labels = _strata(labels, groups)
    hashes = np.fromiter((xxhash.xxh3_64_intdigest(encode_id(name), seed) for name in ids), np.uint64, len(ids))
    classes, members = np.unique(labels, return_inverse=True)
    counts = np.bincount(members, minlength=len(classes))
    wanted = _shares(counts, fraction, classes, seed)
    order = np.lexsort((hashes, members))  # class by class, within each by hash
    place = np.arange(len(ids)) - np.repeat(np.cumsum(counts) - counts, counts)
    chosen = np.zeros(len(ids), bool)
    chosen[order] = place < np.repeat(wanted, counts)
    return np.flatnonzero(~chosen), np.flatnonzero(chosen)


def groups_of(ids: list[str], columns: Mapping[str, Sequence[Any]], name: str) -> Sequence[Any]:
    """The group of each sample: its value in a column, or with ``folder`` the first folder in its id.

    Raises:
        SourceError: the column was not kept, or an id has no folder.
    """
    if name != FOLDER:
        if name not in columns:
            raise SourceError(f"the samples have no column {name!r} to be split by; name one, or {FOLDER!r}")
        return columns[name]
    bare = [sample_id for sample_id in ids if "/" not in sample_id]
    if bare:
        raise SourceError(f"{len(bare)} samples lie in no folder that they could be split by: {shown(bare)}")
    return [sample_id.partition("/")[0] for sample_id in ids]


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


def _strata(labels: np.ndarray, groups: Sequence[Any]) -> np.ndarray:
    """(N,) int64: a number for each pair of a class and a group."""
    _, numbers = np.unique([repr(group) for group in groups], return_inverse=True)
    _, strata = np.unique(np.stack([labels, numbers]), axis=1, return_inverse=True)
    return strata.reshape(-1)


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
