"""What every loss is: a rule from logits and targets to a value for each sample."""

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from fasttrain.base.errors import ConfigError


@dataclass(frozen=True)
class Facts:
    """What a loss may want to know of the training data.

    Attributes:
        num_classes: C.
        counts: (C,) samples of each class over all ranks; None if unknown.
        device: of the logits.
    """

    num_classes: int
    counts: Tensor | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def counts_for(self, what: str) -> Tensor:
        """(C,) float64; a class without samples counts as one of a single sample, so that everything stays finite.

        Raises:
            ConfigError: they are unknown.
        """
        if self.counts is None:
            raise ConfigError(f"{what} needs to know how many samples each class has; give the training data's counts")
        return self.counts.to(self.device, torch.float64).clamp(min=1)


class BatchLoss(Protocol):
    """What a step minimises: from logits and truth to a value for each sample of a batch."""

    def __call__(self, logits: Tensor, labels: Tensor, valid: Tensor, soft: Tensor | None = None) -> Tensor:
        """(B,) float32, 0 for samples that are not `valid` ((B,) bool).

        Args:
            labels: (B,) int64, or masks (B, H, W).
            soft: (B, C) targets instead of labels.
        """
        ...

    def end_step(self) -> None:
        """Called by all ranks after each step."""

    def unobserved(self) -> AbstractContextManager[None]:
        """Inside, backward passes leave no trace in the statistics of the loss."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run has to know."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where `state_dict` was asked for."""


class Loss(ABC):
    """A loss. What it depends on besides its arguments is its state.

    Attributes:
        views: V, views of each sample that it compares.
        collecting: whether what it sees enters its state.
    """

    views = 1
    collecting = True

    @abstractmethod
    def __call__(self, logits: Tensor, labels: Tensor, soft: Tensor | None) -> Tensor:
        """(R,) float32, not below 0.

        Args:
            logits: (V, R, C) float32.
            labels: (R,) int64.
            soft: (R, C) float32, shares of the classes that count instead of the labels; None for labels alone.
        """

    def end_step(self) -> None:  # noqa: B027 (most losses have no state)
        """Take up what the step's backward pass has shown; called by all ranks after each step."""

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run has to know: tensors, all on the CPU."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: B027
        """Go on from where `state_dict` was asked for."""


def shares(labels: Tensor, soft: Tensor | None, classes: int, smoothing: float) -> Tensor:
    """(R, C) float32 targets: `soft` as they are, else one-hot labels with `smoothing` spread over all classes."""
    if soft is not None:
        return soft
    hot = torch.full((len(labels), classes), smoothing / classes, device=labels.device)
    return hot.scatter_(1, labels[:, None], 1 - smoothing + smoothing / classes)
