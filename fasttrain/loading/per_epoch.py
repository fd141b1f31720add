"""What changes from epoch to epoch by a rule: the side of the images, the batch size."""

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import ConfigDict, Discriminator, Field, RootModel, Tag, model_validator

from fasttrain.base.config import Settings
from fasttrain.base.errors import LoaderError
from fasttrain.loading.sampler import Partition
from fasttrain.loading.views import View

PerEpoch = Callable[[int], int]  # a pure function of the epoch, counted from 0


class Ramp(Settings):
    """A straight way from one value to another over some epochs, in whole multiples of a number.

    The resolution ramp of FFCV's ImageNet recipe (``get_resolution`` in github.com/libffcv/ffcv-imagenet); halves are
    rounded to the even multiple, as there.

    Attributes:
        first, last: written ``from`` and ``to``: the value up to epoch `start`, and the one from epoch `end` on.
        start, end: epochs, counted from 0.
        multiple: what all values are multiples of.
    """

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)

    kind: Literal["ramp"] = "ramp"
    first: int = Field(alias="from", ge=1)
    last: int = Field(alias="to", ge=1)
    start: int = Field(default=0, ge=0)
    end: int = Field(ge=1)
    multiple: int = Field(default=32, ge=1)

    @model_validator(mode="after")
    def _possible(self) -> "Ramp":
        if self.end <= self.start:
            raise ValueError(f"a ramp must end after it starts, not in epoch {self.end} after {self.start}")
        odd = [value for value in (self.first, self.last) if value % self.multiple]
        if odd:
            raise ValueError(f"{odd[0]} is no multiple of {self.multiple}; take one that is, or set multiple")
        return self

    def __call__(self, epoch: int) -> int:
        """The value of an epoch."""
        value = np.interp(epoch, [self.start, self.end], [self.first, self.last])
        return int(np.round(value / self.multiple)) * self.multiple

    @property
    def last_epoch(self) -> int:
        """The latest epoch that the rule speaks of."""
        return self.end


class Stages(RootModel[dict[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=1)]]]):
    """A value from each of some epochs on: ``{0: 224, 60: 448, 120: 512}``. Epochs are counted from 0."""

    model_config = ConfigDict(frozen=True)

    @model_validator(mode="after")
    def _rising(self) -> "Stages":
        epochs = list(self.root)
        if not epochs or epochs[0] != 0 or epochs != sorted(epochs):
            raise ValueError("the epochs must rise from 0, as in {0: 224, 60: 448}")
        return self

    def __call__(self, epoch: int) -> int:
        """The value of an epoch."""
        return list(self.root.values())[bisect_right(list(self.root), epoch) - 1]

    @property
    def last_epoch(self) -> int:
        """The latest epoch that the rule speaks of."""
        return list(self.root)[-1]


def _kind(given: Any) -> str | None:
    if isinstance(given, Ramp | Stages):
        return "ramp" if isinstance(given, Ramp) else "stages"
    if not isinstance(given, dict) or not given:
        return None
    return "stages" if all(str(key).lstrip("-").isdecimal() for key in given) else "ramp"


EpochRule = Annotated[
    Annotated[Ramp, Tag("ramp")] | Annotated[Stages, Tag("stages")],
    Discriminator(
        _kind,
        custom_error_type="epoch_rule",
        custom_error_message="give the value from each epoch on, as in {0: 224, 60: 448}, or a ramp, as in "
        "{kind: ramp, from: 160, to: 192, end: 35}",
    ),
]


@dataclass(frozen=True)
class EpochShape:
    """An epoch's batches as one process sees them: side of the images in pixels, samples a batch, number of batches."""

    size: int
    batch_size: int
    steps: int


@dataclass(frozen=True)
class EpochShapes:
    """View and partition of each epoch.

    Attributes:
        view, partition: of epochs in general.
        size, batch_size: what is another in some epochs; None for nothing.
    """

    view: View
    partition: Partition
    size: PerEpoch | None = None
    batch_size: PerEpoch | None = None

    def view_of(self, epoch: int) -> View:
        """The view of an epoch.

        Raises:
            LoaderError: there is no size for it.
        """
        if self.size is None:
            return self.view
        return self.view.model_copy(update={"size": value_of(self.size, epoch, "size")})

    def partition_of(self, epoch: int) -> Partition:
        """How the samples of an epoch are dealt to ranks and steps.

        Raises:
            LoaderError: there is no batch size for it, or too few samples for a batch.
        """
        if self.batch_size is None:
            return self.partition
        return replace(self.partition, batch_size=value_of(self.batch_size, epoch, "batch_size"))

    def of(self, epoch: int) -> EpochShape:
        """The shape of an epoch's batches.

        Raises:
            LoaderError: it is impossible.
        """
        partition = self.partition_of(epoch)
        return EpochShape(self.view_of(epoch).size, partition.batch_size, partition.steps)


def value_of(rule: PerEpoch, epoch: int, name: str) -> int:
    """What `rule` gives for an epoch.

    Raises:
        LoaderError: it is no whole number from 1 on.
    """
    value = rule(epoch)
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < 1:
        raise LoaderError(f"{name} must be a whole number from 1 on in each epoch, and is {value!r} in epoch {epoch}")
    return int(value)
