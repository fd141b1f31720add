"""Batches of two data sets side by side: labelled images of the source, unlabelled ones of the target."""

from collections.abc import Iterator
from typing import Any

from fasttrain.base.errors import TrainingError
from fasttrain.loading.batch import Batch, MaskedBatch
from fasttrain.loading.loader import Loader
from fasttrain.loading.per_epoch import EpochShape


class PairedBatch(MaskedBatch):
    """A batch of the source, and that of the target beside it.

    Attributes:
        target: images, and masks that only tell where they are (0, and 255 beyond them).
    """

    target: MaskedBatch

    @classmethod
    def of(cls, source: Batch, target: Batch) -> "PairedBatch":
        """The pair of two batches with masks."""
        assert isinstance(source, MaskedBatch) and isinstance(target, MaskedBatch)
        pair = cls(*source, source.masks)
        assert isinstance(pair, PairedBatch)
        pair.target = target
        return pair

    def __new__(cls, *parts: Any) -> "PairedBatch":
        batch = tuple.__new__(cls, parts[:4])
        batch.masks = parts[4]
        return batch


class PairedLoader:
    """Two loaders whose batches come in pairs; to a training loop it is the source's `Loader`.

    Epochs are as long as both say, each loader has an order and a position of its own.

    Raises:
        TrainingError: their epochs have different numbers of batches, or batches different sizes.
    """

    def __init__(self, source: Loader, target: Loader) -> None:
        self.source, self.target = source, target
        if (len(source), source.batch_size) != (len(target), target.batch_size):
            raise TrainingError(
                f"source and target do not go in pairs: {len(source)} batches of {source.batch_size} images, and "
                f"{len(target)} of {target.batch_size}"
            )

    def __getattr__(self, name: str) -> Any:
        if name in ("source", "target"):  # before they are there
            raise AttributeError(name)
        return getattr(self.source, name)

    def __len__(self) -> int:
        return len(self.source)

    def __iter__(self) -> Iterator[PairedBatch]:
        for source, target in zip(self.source, self.target, strict=True):
            yield PairedBatch.of(source, target)

    @property
    def steps_left(self) -> int:
        """See `Loader`."""
        return self.source.steps_left

    @property
    def skipped(self) -> list[tuple[str, str]]:
        """Samples left out of both."""
        return [*self.source.skipped, *self.target.skipped]

    def shape_of(self, epoch: int) -> EpochShape:
        """See `Loader`."""
        return self.source.shape_of(epoch)

    def set_epoch(self, epoch: int) -> None:
        """See `Loader`."""
        self.source.set_epoch(epoch)
        self.target.set_epoch(epoch)

    def state_dict(self) -> dict[str, Any]:
        """The source's position, and the target's within it."""
        return {**self.source.state_dict(), "target": self.target.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self.source.load_state_dict({key: value for key, value in state.items() if key != "target"})
        self.target.load_state_dict(state["target"])

    def close(self) -> None:
        """Close both."""
        self.source.close()
        self.target.close()
