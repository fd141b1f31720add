"""Which samples an epoch goes through, and in which order: pure functions of seed, epoch and the samples."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fasttrain.base.errors import LoaderError
from fasttrain.loading.dataset import ImageDataset
from fasttrain.loading.randomness import Operation, distinct_keys, random_bits, uniforms
from fasttrain.loading.rare_classes import RareClasses

Order = Literal["random", "windowed", "sequential"]


@dataclass(frozen=True)
class Sampling:
    """How often each sample occurs in an epoch of training; by default once.

    With `draws` draws, a sample of weight w occurs w / (sum of weights) * draws times, rounded up or down, and so does
    each class as a whole (systematic sampling; Madow & Madow, Ann. Math. Stat. 15, 1944). Which samples are rounded up
    changes from epoch to epoch. So no sample of a class comes again before each of equal weight had its turn, which
    independent draws would not grant. Each occurrence of a sample has a view of its own.

    Attributes:
        class_balance: share of the way from classes as frequent as they are (0) to all equally frequent (1): a class
            of n samples is drawn as n^(1 - class_balance). 0.5 is square-root sampling (Kang et al., "Decoupling
            representation and classifier for long-tailed recognition", ICLR 2020).
        weights: of each sample, besides: (N,) numbers from 0 on, for all N samples of the data set, or the name of a
            field of a `.beton`. Samples of weight 0 do not occur.
        draws: length of an epoch in samples; None for as many as there are.
        rare_classes: images are drawn for the classes of their masks' pixels, rare ones more often; alone.
    """

    class_balance: float = 0.0
    weights: np.ndarray | Sequence[float] | str | None = None
    draws: int | None = None
    rare_classes: RareClasses | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.class_balance <= 1:
            raise LoaderError(f"class_balance must lie between 0 and 1, not be {self.class_balance}")
        if self.draws is not None and self.draws < 1:
            raise LoaderError(f"an epoch must have at least 1 draw, not {self.draws}")

    def pool_of(self, dataset: ImageDataset, rows: np.ndarray) -> "Pool | None":
        """What the samples of an epoch are drawn from, None where each of `rows` is to occur once.

        Raises:
            LoaderError: as `weights_of`; or the data set has no masks, whose rare classes are wanted.
        """
        keys = dataset.keys[rows]
        if self.rare_classes is not None:
            if self.class_balance or self.weights is not None:
                raise LoaderError("rare_classes says how often samples are drawn; leave class_balance and weights out")
            table = self.rare_classes.table(dataset, rows)
            samples = EpochOrder(rows[table.positions], keys[table.positions], table.classes)
            return Pool(samples, table.classes, table.weights)
        weights = self.weights_of(dataset, rows)
        return None if weights is None else Pool(EpochOrder(rows, keys), dataset.labels[rows], weights)

    def weights_of(self, dataset: ImageDataset, rows: np.ndarray) -> np.ndarray | None:
        """(n,) float64 weights of `rows` of a data set, None where each of them is to occur once.

        Raises:
            LoaderError: there is no such field, the weights are none, or classes are to be balanced without labels.
        """
        if self.weights is None and not self.class_balance and self.draws in (None, len(rows)):
            return None
        weights = np.ones(len(rows)) if self.weights is None else self._stated(dataset)[rows]
        if self.class_balance:
            labels = dataset.labels[rows]
            if labels.min() < 0:
                raise LoaderError(f"{dataset.name} has samples without a label, so its classes cannot be balanced")
            weights = weights * np.bincount(labels)[labels] ** -float(self.class_balance)
        if not weights.any():
            raise LoaderError(f"all samples chosen from {dataset.name} have a weight of 0, so none could be drawn")
        return weights

    def _stated(self, dataset: ImageDataset) -> np.ndarray:
        """(N,) float64 for all samples of the data set."""
        if isinstance(self.weights, str):
            what, stated = f"the field {self.weights!r} of {dataset.name}", dataset.column(self.weights)
        else:
            what, stated = "the weights", np.asarray(self.weights)
        if stated.dtype.kind not in "iuf" or stated.shape != (dataset.num_samples,):
            raise LoaderError(f"{what} must be one number a sample ({dataset.num_samples}), to serve as weights")
        wrong = np.flatnonzero(~(np.isfinite(stated) & (stated >= 0)))
        if len(wrong):
            name = dataset.string_ids(wrong[:1])[0]
            raise LoaderError(f"{what} must be numbers from 0 on, but sample {name!r} has {stated[wrong[0]]}")
        return stated.astype(np.float64)


@dataclass(frozen=True)
class EpochOrder:
    """The samples of an epoch in their order.

    Attributes:
        rows: (n,) int64 rows of the data set.
        keys: (n,) uint64 randomness keys, another one for each occurrence of a sample.
        focus: (n,) int64 class of pixels for which each was drawn; None for none.
    """

    rows: np.ndarray
    keys: np.ndarray
    focus: np.ndarray | None = None

    def take(self, positions: np.ndarray) -> "EpochOrder":
        """The samples at `positions`, which must lie within the epoch."""
        focus = None if self.focus is None else self.focus[positions]
        return EpochOrder(self.rows[positions], self.keys[positions], focus)


@dataclass(frozen=True)
class Pool:
    """What the samples of an epoch are drawn from: see `drawn`."""

    samples: EpochOrder
    labels: np.ndarray
    weights: np.ndarray


def shuffled(samples: EpochOrder, seed: int, epoch: int) -> EpochOrder:
    """The random order, which depends on the samples' keys and on nothing else."""
    return samples.take(np.argsort(_order_bits(samples.keys, seed, epoch, Operation.ORDER), kind="stable"))


def windowed(samples: EpochOrder, blocks: np.ndarray, seed: int, epoch: int, window: int) -> EpochOrder:
    """An order that is random and yet reads the file `window` blocks at a time.

    The blocks of an epoch are shuffled and dealt to windows of `window` each; within a window all samples are shuffled.
    So at any time the reads of an epoch fall into one window (two at its edge), which fits the page cache where the
    whole file does not. It depends on where the samples lie, besides on what `shuffled` depends on.

    Args:
        blocks: (n,) int64, the block in which each sample lies, as the page of a `.beton`.
    """
    numbers, block_of = np.unique(blocks, return_inverse=True)
    block_bits = _order_bits(numbers.astype(np.uint64), seed, epoch, Operation.BLOCK_ORDER)
    place = np.empty(len(numbers), np.int64)
    place[np.argsort(block_bits, kind="stable")] = np.arange(len(numbers))
    bits = _order_bits(samples.keys, seed, epoch, Operation.ORDER)
    return samples.take(np.lexsort((bits, place[block_of] // window)))


def drawn(
    samples: EpochOrder, labels: np.ndarray, weights: np.ndarray, draws: int, seed: int, epoch: int
) -> EpochOrder:
    """The occurrences of an epoch as `Sampling` describes them, class by class; not yet shuffled.

    Args:
        labels: (n,) int64 classes of the samples.
        weights: (n,) float64, not negative, not all 0.
    """
    able = np.flatnonzero(weights > 0)  # rounding must not give a turn to a sample that has none
    bits = _order_bits(samples.keys[able], seed, epoch, Operation.DRAW_ORDER)
    order = able[np.lexsort((bits, labels[able]))]
    ends = np.cumsum(weights[order])
    start = uniforms(seed, epoch, np.zeros(1, np.uint64), Operation.DRAW_START)[0, 0]
    points = (np.arange(draws) + start) * (ends[-1] / draws)
    chosen = samples.take(order[np.minimum(np.searchsorted(ends, points, side="right"), len(order) - 1)])
    return EpochOrder(chosen.rows, distinct_keys(chosen.keys, Operation.DRAWN_KEY), chosen.focus)


def _order_bits(keys: np.ndarray, seed: int, epoch: int, operation: int) -> np.ndarray:
    """(n,) uint64 to sort by."""
    bits = random_bits(seed, epoch, keys, operation).astype(np.uint64)
    return (bits[0] << np.uint64(32)) | bits[1]
