"""From a batch's logits to a loss for each sample."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from fasttrain.base.errors import ConfigError
from fasttrain.models.heads import HeadSettings
from fasttrain.training.losses.base import Facts, Loss
from fasttrain.training.losses.cross_entropy import CrossEntropy
from fasttrain.training.losses.margins import ArcMargin, make_margin
from fasttrain.training.losses.settings import LossSettings
from fasttrain.training.losses.weights import class_weights


class Criterion:
    """A loss with all that belongs to it; in float32, whatever autocast says.

    Args:
        loss: the loss itself.
        margin: of the true class, where the head has one.
        weights: (C,) float32, how often samples of a class count.
        hardest: share of the batch that learns.
        soft_targets: whether loss and margin can do with shares of several classes.
    """

    def __init__(
        self,
        loss: Loss,
        margin: ArcMargin | None = None,
        weights: Tensor | None = None,
        hardest: float = 1.0,
        soft_targets: bool = True,
    ) -> None:
        self.loss, self.margin, self.weights, self.hardest = loss, margin, weights, hardest
        self.takes_soft_targets = soft_targets

    def __call__(self, logits: Tensor, labels: Tensor, valid: Tensor, soft: Tensor | None = None) -> Tensor:
        """(B,) float32, 0 for samples that are masked.

        Args:
            logits: (K * V * B, C): all samples of a view, all views, and that K times if the head gives several rows
                for an image, whose losses are averaged.
            labels: (B,) int64, any from 0 to C - 1 for masked samples.
            valid: (B,) bool.
            soft: (B, C) float32 targets instead of the labels, smoothed already if they are to be.

        Raises:
            ConfigError: soft targets for a loss or a margin that needs labels, or logits of fewer views than the loss
                compares.
        """
        if soft is not None and not self.takes_soft_targets:
            raise ConfigError("this loss or head needs one label for each image; turn mixing of images off")
        views, size = self.loss.views, len(labels)
        if len(logits) % (views * size):
            raise ConfigError(f"the loss compares {views} views of each of {size} samples, but got {len(logits)} rows")
        with torch.autocast(logits.device.type, enabled=False):
            rows = logits.float().view(-1, views, size, logits.shape[1])
            copies = len(rows)
            by_view = rows.transpose(0, 1).reshape(views, copies * size, -1)
            label, shares = labels.repeat(copies), None if soft is None else soft.float().repeat(copies, 1)
            if self.margin is not None:
                by_view = self.margin(by_view[0], label)[None]
            losses = self.loss(by_view, label, shares).view(copies, size).mean(0)
            if self.weights is not None:
                losses = losses * (self.weights[labels] if soft is None else soft.float() @ self.weights)
            losses = torch.where(valid, losses, 0.0)
            return losses if self.hardest == 1 else hardest_of(losses, valid, self.hardest)

    def end_step(self) -> None:
        """Called by all ranks after each step."""
        self.loss.end_step()

    @contextmanager
    def unobserved(self) -> Iterator[None]:
        """Inside, backward passes leave no trace in the statistics of the loss."""
        self.loss.collecting = False
        try:
            yield
        finally:
            self.loss.collecting = True

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run has to know."""
        return self.loss.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where `state_dict` was asked for."""
        self.loss.load_state_dict(state)


def plain_criterion(smoothing: float) -> Criterion:
    """Cross-entropy."""
    return Criterion(CrossEntropy(smoothing))


def make_criterion(
    settings: LossSettings, head: HeadSettings, smoothing: float, facts: Facts, names: Sequence[str] | None = None
) -> Criterion:
    """The loss of a run.

    Args:
        smoothing: of labels.
        facts: of the training data.
        names: of the classes.

    Raises:
        ConfigError: it needs something that is not there.
    """
    return Criterion(
        settings.needs.make(settings, facts, smoothing),
        make_margin(head, facts),
        class_weights(settings.class_weights, settings.beta, facts, names),
        settings.hardest,
        settings.needs.soft_targets and head.kind != "arcface",
    )


def needs_counts(settings: LossSettings, head: HeadSettings) -> bool:
    """Whether the loss or the head's margins go by how many samples each class has."""
    return settings.corrects_frequencies or head.adaptive


def hardest_of(losses: Tensor, valid: Tensor, share: float) -> Tensor:
    """(B,) of which only the largest of the valid ones are kept, at least one, scaled so that the mean over the valid
    samples is that over the kept ones. Nothing waits for the device."""
    count = valid.sum()
    wanted = (share * count - 1e-3).ceil().clamp(min=1)
    order = torch.where(valid, losses.detach(), -torch.inf).argsort(descending=True, stable=True)
    place = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
    return torch.where(valid & (place < wanted), losses * (count / wanted), 0.0)
