"""How the samples of an epoch are dealt to ranks and steps: a pure function of (rank, world, batch size)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from fasttrain.base.errors import LoaderError
from fasttrain.loading.order import Order

Rest = Literal["drop", "wrap"]
PADDING = -1


@dataclass(frozen=True)
class Partition:
    """How a list of samples is dealt to ranks.

    A global batch is ``batch_size * world`` consecutive samples of the epoch's order, and a rank's batch its slice of
    it; so the global order does not depend on the world size.

    * ``random`` and ``windowed`` (training): only whole global batches, the same number of steps on every rank. What is
      left for the last one is left out (``drop``: no sample twice in an epoch; another remainder each epoch), or is
      filled up from the epoch's beginning (``wrap``: each sample at least once).
    * ``sequential`` (evaluation): every sample exactly once over all ranks, the last batches padded with `PADDING`.

    Attributes:
        samples: length of an epoch.
        rest: of training orders.
    """

    samples: int
    batch_size: int
    order: Order
    rank: int = 0
    world: int = 1
    rest: Rest = "drop"

    def __post_init__(self) -> None:
        if self.order not in get_args(Order):
            raise LoaderError(f"the order must be one of {', '.join(get_args(Order))}, not {self.order!r}")
        if self.rest not in get_args(Rest):
            raise LoaderError(f"the rest must be one of {', '.join(get_args(Rest))}, not {self.rest!r}")
        if not 0 <= self.rank < self.world:
            raise LoaderError(f"rank {self.rank} is not one of a world of {self.world}")
        if self.batch_size < 1:
            raise LoaderError(f"the batch size must be at least 1, not {self.batch_size}")
        if self.samples < 1:
            raise LoaderError("the data set holds no samples")
        if not self.steps:
            self._refuse_short_epoch()

    def _refuse_short_epoch(self) -> None:
        ranks = f" on each of {self.world} processes" if self.world > 1 else ""
        need = f"a batch of {self.batch_size}{ranks} needs {self.global_batch} samples, the data set has {self.samples}"
        if self.samples < self.world:
            raise LoaderError(f"{need}; start {self.samples} processes or fewer, or use rest='wrap'")
        raise LoaderError(f"{need}; use a batch size of {self.samples // self.world} or less, or rest='wrap'")

    @property
    def global_batch(self) -> int:
        """Samples that all ranks together take in a step."""
        return self.batch_size * self.world

    @property
    def steps(self) -> int:
        """Batches of each rank in an epoch."""
        return self.steps_from(0)

    def steps_from(self, offset: int) -> int:
        """Batches of each rank from global position `offset` on."""
        left = max(0, self.samples - offset)
        if self.order != "sequential" and self.rest == "drop":
            return left // self.global_batch
        return -(-left // self.global_batch)

    def batches(self, offset: int = 0) -> Iterator[np.ndarray]:
        """This rank's batches from global position `offset` of the epoch's order on.

        Yields:
            (batch_size,) int64 positions in the epoch's order. `PADDING` stands for none; a position from `samples` on
            (``wrap``) is one from the beginning again.
        """
        for step in range(self.steps_from(offset)):
            first = offset + step * self.global_batch + self.rank * self.batch_size
            positions = np.arange(first, first + self.batch_size, dtype=np.int64)
            if self.order == "sequential":
                positions[positions >= self.samples] = PADDING
            yield positions
