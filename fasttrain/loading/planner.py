"""The plans of an epoch's batches, in order: which samples, and what happens to each of them."""

from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass

import numpy as np

from fasttrain.base.errors import ImageError
from fasttrain.loading.dataset import ImageDataset, readable_sizes
from fasttrain.loading.masks import Masks, together
from fasttrain.loading.order import EpochOrder, Pool, drawn, shuffled, windowed
from fasttrain.loading.plan import BatchPlan, plan_batch
from fasttrain.loading.randomness import Operation, repeated_keys
from fasttrain.loading.sampler import PADDING, Partition
from fasttrain.loading.views import View


@dataclass(frozen=True)
class PlannedBatch:
    """A plan, and the samples that are already known to be unreadable.

    Attributes:
        plan: the plan; those samples have a stand-in for a box.
        unreadable: errors by position in the batch; a backend must leave the entries of these samples alone.
    """

    plan: BatchPlan
    unreadable: dict[int, ImageError]

    @property
    def wanted(self) -> np.ndarray:
        """(B,) bool: samples whose entries a backend is to fill."""
        wanted = ~self.plan.padded
        wanted[list(self.unreadable)] = False
        return wanted


class Planner:
    """Plans batches of a data set, or of some of its rows.

    Args:
        rows: (n,) int64 rows of the data set.
        pool: what epochs are drawn from (see `Sampling`), None for each of `rows` once.
        tolerant: note images whose size cannot be read, instead of raising.
        window: blocks that the windowed order reads at a time.
        views: of each sample.
        masks: images come with masks: crops look at them (but for extents), and nothing parts the two.
    """

    def __init__(
        self,
        dataset: ImageDataset,
        rows: np.ndarray,
        pool: Pool | None,
        partition: Partition,
        view: View,
        seed: int,
        tolerant: bool,
        window: int,
        views: int = 1,
        masks: Masks = False,
    ) -> None:
        self._dataset, self._rows, self._pool, self._partition = dataset, rows, pool, partition
        self._view, self._seed, self._tolerant, self._window, self._views = view, seed, tolerant, window, views
        self._masks = masks

    def adapted(self, partition: Partition, view: View) -> "Planner":
        """One for the same samples, dealt and shown in another way."""
        other = copy(self)
        other._partition, other._view = partition, view
        return other

    def epoch(self, epoch: int, offset: int = 0) -> Iterator[PlannedBatch]:
        """This rank's batches of an epoch from global position `offset` on.

        Raises:
            ImageError: the size of an image cannot be read.
        """
        order = self._order(epoch)
        for positions in self._partition.batches(offset):
            round_, place = np.divmod(np.maximum(positions, 0), len(order.rows))
            samples = order.take(place)
            rows = np.where(positions == PADDING, PADDING, samples.rows)
            keys = repeated_keys(samples.keys, round_, Operation.WRAPPED_KEY)
            sizes, unreadable = self._sizes(rows)
            yield PlannedBatch(self._plan(rows, keys, sizes, epoch, samples.focus), unreadable)

    def _plan(
        self, rows: np.ndarray, keys: np.ndarray, sizes: np.ndarray, epoch: int, focus: np.ndarray | None
    ) -> BatchPlan:
        look = self._look if self._masks is True else None
        plan = plan_batch(self._view, rows, keys, sizes, self._seed, epoch, self._views, look=look, focus=focus)
        return together(plan) if self._masks else plan

    def _look(self, row: int) -> np.ndarray | None:
        try:
            return self._dataset.mask(row)
        except ImageError:  # which comes again where the mask is made
            return None

    def _order(self, epoch: int) -> EpochOrder:
        """All samples of an epoch, in its order."""
        samples, seed = EpochOrder(self._rows, self._dataset.keys[self._rows]), self._seed
        if self._pool is not None:
            pool, draws = self._pool, self._partition.samples
            samples = drawn(pool.samples, pool.labels, pool.weights, draws, seed, epoch)
        if self._partition.order == "random":
            return shuffled(samples, seed, epoch)
        if self._partition.order == "windowed":
            return windowed(samples, self._dataset.blocks(samples.rows), seed, epoch, self._window)
        return samples

    def _sizes(self, batch: np.ndarray) -> tuple[np.ndarray, dict[int, ImageError]]:
        """Sizes (B, 2) int64, 1 x 1 for padded and unreadable entries."""
        sizes = np.ones((len(batch), 2), np.int64)
        real = np.flatnonzero(batch != PADDING)
        sizes[real], errors = readable_sizes(self._dataset, batch[real])
        if errors and not self._tolerant:
            raise errors[min(errors)]
        return sizes, {int(real[position]): error for position, error in errors.items()}
