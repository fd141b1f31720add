"""The epochs of a run: how large their images and batches are, and which of the run's steps are theirs."""

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

from fasttrain.loading.per_epoch import EpochShape


@dataclass(frozen=True)
class EpochTable:
    """The shape of each epoch's batches.

    Attributes:
        shapes: of each epoch; one has at least one step.
        shown: what of them is recorded with an epoch's figures: fields of `EpochShape` that change by a rule.
    """

    shapes: tuple[EpochShape, ...]
    shown: tuple[str, ...] = ()

    @classmethod
    def of(cls, shape: Callable[[int], EpochShape], epochs: int, shown: tuple[str, ...] = ()) -> "EpochTable":
        """The table of as many epochs, whose shape a function gives."""
        return cls(tuple(map(shape, range(epochs))), shown)

    @classmethod
    def even(cls, steps: int, epochs: int) -> "EpochTable":
        """Epochs of `steps` each, all alike."""
        return cls((EpochShape(1, 1, steps),) * epochs)

    @property
    def epochs(self) -> int:
        return len(self.shapes)

    @property
    def steps(self) -> int:
        """Steps of the run."""
        return self.first[-1]

    @cached_property
    def first(self) -> tuple[int, ...]:
        """The first step of each epoch, counted over the run; behind them the number of all steps."""
        return tuple(accumulate((shape.steps for shape in self.shapes), initial=0))

    @cached_property
    def _work(self) -> tuple[int, ...]:
        """Pixels of a sample's channel that a process trains on before each epoch; behind them those of the run."""
        return tuple(accumulate((shape.steps * _pixels(shape) for shape in self.shapes), initial=0))

    def epoch_of(self, step: int) -> int:
        """The epoch of a step that is counted over the run."""
        return bisect_right(self.first, step) - 1

    def steps_in(self, epochs: float) -> float:
        """Steps of the first `epochs`, parts of one allowed; the last one is taken to go on as it is."""
        epoch = min(int(epochs), self.epochs - 1)
        steps = self.shapes[epoch].steps
        return epochs * steps + (self.first[epoch] - epoch * steps)

    def work_done(self, epoch: int, step: int) -> float:
        """The share of a run's pixels that a process has trained on after `step` steps of an epoch."""
        return (self._work[epoch] + step * _pixels(self.shapes[epoch])) / self._work[-1]

    def figures(self, epoch: int) -> dict[str, int]:
        """What is recorded of an epoch's shape."""
        return {name: getattr(self.shapes[epoch], name) for name in self.shown}

    def changes(self) -> list[int]:
        """The epochs whose images or batches have another size than those of the one before."""
        pairs = enumerate(zip(self.shapes, self.shapes[1:], strict=False), 1)
        return [epoch for epoch, (one, other) in pairs if (one.size, one.batch_size) != (other.size, other.batch_size)]


def _pixels(shape: EpochShape) -> int:
    """Of one step."""
    return shape.batch_size * shape.size**2
