"""Makes a data set harder on purpose: a long tail of classes, and labels that are wrong. For studies."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xxhash

from fasttrain.base.atomic import atomic_open
from fasttrain.base.errors import SourceError
from fasttrain.beton_build.sources import SampleList
from fasttrain.beton_build.trailer import encode_id

# Seeds of the three choices, so that they are independent of each other.
_SUBSET, _WHETHER, _WHICH = 0, 1, 2


@dataclass(frozen=True)
class Corrupted:
    """A subset with labels that are in part wrong.

    Attributes:
        rows: int64 (K,), ascending: the samples that are left.
        labels: int64 (K,): what their labels are said to be.
        flipped: bool (K,): where that is wrong.
    """

    rows: np.ndarray
    labels: np.ndarray
    flipped: np.ndarray


def corrupt(
    samples: SampleList, *, imbalance: float = 1.0, most: int | None = None, noise: float = 0.0, seed: int = 0
) -> Corrupted:
    """Choose a long-tailed subset and give a share of it wrong labels.

    Of class c of C, in their order, ``most * imbalance ** (-c / (C - 1))`` samples are left (Cui et al.,
    "Class-balanced loss", CVPR 2019). With probability `noise` a label becomes one of the other classes, each as likely
    (symmetric noise). What happens to a sample depends on its id and the seed, and for the subset on the other ids of
    its class.

    Args:
        samples: labelled ones; those without a label are left out.
        imbalance: samples of the first class over those of the last one, at least 1.
        most: samples of the first class; by default as many as all classes allow.
        noise: share of wrong labels, 0 <= noise < 1.

    Raises:
        SourceError: a class has too few samples, or there are fewer than two classes.
    """
    classes = len(samples.class_names)
    counts = np.bincount(samples.labels[samples.labels >= 0], minlength=classes)
    if classes < 2:
        raise SourceError("a long tail and wrong labels need at least two classes")
    profile = imbalance ** (-np.arange(classes) / (classes - 1))
    wanted = np.round((np.floor((counts / profile).min()) if most is None else most) * profile).astype(np.int64)
    short = np.flatnonzero((wanted > counts) | (wanted < 1))
    if len(short):
        name = samples.class_names[short[0]]
        raise SourceError(f"{wanted[short[0]]} samples of the class {name!r} are wanted, of {counts[short[0]]}")
    rows = _subset(samples.ids, samples.labels, wanted, seed)
    ids, labels = [samples.ids[row] for row in rows], samples.labels[rows]
    flipped = _hashes(ids, seed, _WHETHER) < noise * 2.0**64
    others = (labels + 1 + (_hashes(ids, seed, _WHICH) % np.uint64(classes - 1)).astype(np.int64)) % classes
    return Corrupted(rows, np.where(flipped, others, labels), flipped)


def write_labels(path: Path, samples: SampleList, rows: np.ndarray, labels: np.ndarray) -> None:
    """Write a table ``id,label`` of class names, which `build` takes as labels and as list of ids."""
    with atomic_open(path, newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["id", "label"])
        names = (samples.class_names[number] for number in labels.tolist())
        table.writerows(zip((samples.ids[row] for row in rows.tolist()), names, strict=True))


def _subset(ids: Sequence[str], labels: np.ndarray, wanted: np.ndarray, seed: int) -> np.ndarray:
    """Rows of the samples with the smallest hashes of each class."""
    hashes = _hashes(ids, seed, _SUBSET)
    chosen = []
    for number, count in enumerate(wanted.tolist()):
        rows = np.flatnonzero(labels == number)
        chosen.append(rows[np.argsort(hashes[rows], kind="stable")[:count]])
    return np.sort(np.concatenate(chosen))


def _hashes(ids: Sequence[str], seed: int, choice: int) -> np.ndarray:
    """uint64 (N,)."""
    seeded = 4 * seed + choice
    return np.fromiter((xxhash.xxh3_64_intdigest(encode_id(name), seeded) for name in ids), np.uint64, len(ids))
