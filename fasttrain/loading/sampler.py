"""Which samples each rank sees in which step: a pure function of (seed, epoch, rank, world)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from fasttrain.base.errors import LoaderError
from fasttrain.loading.randomness import Operation, random_bits

Order = Literal["random", "windowed", "sequential"]
PADDING = -1


def shuffled(rows: np.ndarray, keys: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """`rows` in the random order of an epoch, which depends on the samples' keys and on nothing else."""
    bits = random_bits(seed, epoch, keys, Operation.ORDER).astype(np.uint64)
    return rows[np.argsort((bits[0] << np.uint64(32)) | bits[1], kind="stable")]


def windowed(rows: np.ndarray, keys: np.ndarray, blocks: np.ndarray, seed: int, epoch: int, window: int) -> np.ndarray:
    """`rows` in an order that is random and yet reads the file `window` blocks at a time.

    The blocks of an epoch are shuffled and dealt to windows of `window` each; within a window all samples are shuffled.
    So at any time the reads of an epoch fall into one window (two at its edge), which fits the page cache where the
    whole file does not. It depends on where the samples lie, besides on what `shuffled` depends on.

    Args:
        blocks: (n,) int64, the block in which each of `rows` lies, as the page of a `.beton`.
    """
    numbers, block_of = np.unique(blocks, return_inverse=True)
    block_bits = random_bits(seed, epoch, numbers.astype(np.uint64), Operation.BLOCK_ORDER).astype(np.uint64)
    place = np.empty(len(numbers), np.int64)
    place[np.argsort((block_bits[0] << np.uint64(32)) | block_bits[1], kind="stable")] = np.arange(len(numbers))
    bits = random_bits(seed, epoch, keys, Operation.ORDER).astype(np.uint64)
    return rows[np.lexsort(((bits[0] << np.uint64(32)) | bits[1], place[block_of] // window))]


@dataclass(frozen=True)
class Partition:
    """How a list of samples is dealt to ranks.

    A global batch is ``batch_size * world`` consecutive samples of the epoch's order, and a rank's batch its slice of
    it; so the global order does not depend on the world size.

    * ``random`` and ``windowed`` (training): only whole global batches. No sample twice in an epoch, the same number of
      steps on every rank; the remainder is left out, another one each epoch.
    * ``sequential`` (evaluation): every sample exactly once over all ranks, the last batches padded with `PADDING`.
    """

    samples: int
    batch_size: int
    order: Order
    rank: int = 0
    world: int = 1

    def __post_init__(self) -> None:
        if self.order not in get_args(Order):
            raise LoaderError(f"the order must be one of {', '.join(get_args(Order))}, not {self.order!r}")
        if not 0 <= self.rank < self.world:
            raise LoaderError(f"rank {self.rank} is not one of a world of {self.world}")
        if self.batch_size < 1:
            raise LoaderError(f"the batch size must be at least 1, not {self.batch_size}")
        if self.samples < 1:
            raise LoaderError("the data set holds no samples")
        if self.drops_rest and self.samples < self.global_batch:
            of_ranks = f" on each of {self.world} processes" if self.world > 1 else ""
            raise LoaderError(
                f"a batch of {self.batch_size}{of_ranks} needs {self.global_batch} samples, the data set has "
                f"{self.samples}; use a batch size of {max(1, self.samples // self.world)} or less"
            )

    @property
    def drops_rest(self) -> bool:
        """Whether an epoch ends with its last whole global batch, as in training."""
        return self.order != "sequential"

    @property
    def global_batch(self) -> int:
        """Samples that all ranks together take in a step."""
        return self.batch_size * self.world

    @property
    def steps(self) -> int:
        """Batches of each rank in an epoch."""
        if self.drops_rest:
            return self.samples // self.global_batch
        return -(-self.samples // self.global_batch)

    def batches(self, epoch_rows: np.ndarray, offset: int = 0) -> Iterator[np.ndarray]:
        """This rank's batches, each (batch_size,) int64, from global position `offset` of the epoch's order on."""
        for start in range(offset, len(epoch_rows), self.global_batch):
            first = start + self.rank * self.batch_size
            rows = epoch_rows[first : first + self.batch_size]
            if self.drops_rest and start + self.global_batch > len(epoch_rows):
                return
            missing = self.batch_size - len(rows)
            yield np.pad(rows, (0, missing), constant_values=PADDING) if missing else rows
