"""The learning rate of each step: a function of the step alone, but for ``plateau``, which remembers the losses."""

import math
from typing import Any

import torch

from fasttrain.training.schedule_settings import ScheduleSettings, multiple_of

_RISE = 0.3  # of a one-cycle run
_CYCLE_START = 1 / 25  # of its peak
_DROPS_OF_1X = (7, 10)  # epochs


def shape(settings: ScheduleSettings, progress: float) -> float:
    """Share of the peak at `progress` (0 to 1) through the steps after the warm-up, for kinds that fall smoothly.

    - cosine: SGDR without restarts (Loshchilov & Hutter, arXiv 1608.03983); also the fall of ``onecycle`` (Smith &
      Topin, arXiv 1708.07120, with cosines for lines, as torch's OneCycleLR).
    - linear; poly: (1 - progress) to the `power` (DeepLab, arXiv 1606.00915).
    """
    if settings.kind in ("cosine", "onecycle"):
        fallen = 0.5 * (1 - math.cos(math.pi * progress))
    elif settings.kind == "linear":
        fallen = progress
    elif settings.kind == "poly":
        fallen = 1 - (1 - progress) ** settings.power
    else:
        fallen = 0.0
    return 1 - (1 - settings.final_lr_share) * fallen


def drops(settings: ScheduleSettings, epoch: int) -> int:
    """How often the rate has been multiplied by `gamma` at the beginning of `epoch`, for kinds that fall in steps."""
    if settings.kind == "step":
        return int(epoch // settings.step_epochs)
    multiple = multiple_of(settings.kind)
    milestones = settings.milestones if multiple is None else tuple(multiple * at for at in _DROPS_OF_1X)
    return sum(epoch >= milestone for milestone in milestones)


class Schedule:
    """Sets the learning rate of every parameter group before a step: `lr` times the group's `lr_scale`."""

    def __init__(self, settings: ScheduleSettings, peak_lr: float, steps_per_epoch: int, epochs: int) -> None:
        self.settings, self.peak_lr = settings, peak_lr
        self.steps_per_epoch = steps_per_epoch
        self.total_steps = steps_per_epoch * epochs
        self.warmup_steps = self._warmup()
        self._plateau = Plateau(settings.patience)

    def _warmup(self) -> int:
        """Steps of the rise, never more than half of the run."""
        settings, multiple = self.settings, multiple_of(self.settings.kind)
        if settings.warmup_epochs is not None:
            steps = settings.warmup_epochs * self.steps_per_epoch
        elif settings.kind == "onecycle":
            steps = _RISE * self.total_steps
        else:
            steps = (multiple or 1.0) * self.steps_per_epoch
        return min(round(steps), self.total_steps // 2)

    def share(self, step: int) -> float:
        """Learning rate of a step, counted from 0 over all epochs, as a share of the peak."""
        if step < self.warmup_steps:
            if self.settings.kind == "onecycle":
                return 1 - (1 - _CYCLE_START) * 0.5 * (1 + math.cos(math.pi * step / self.warmup_steps))
            return (step + 1) / (self.warmup_steps + 1)
        progress = (step - self.warmup_steps) / max(1, self.total_steps - 1 - self.warmup_steps)
        times = drops(self.settings, step // self.steps_per_epoch) + self._plateau.drops
        return shape(self.settings, min(1.0, progress)) * self.settings.gamma**times

    def lr(self, step: int) -> float:
        """Learning rate of a step, counted from 0 over all epochs."""
        return self.peak_lr * self.share(step)

    def apply(self, optimizer: torch.optim.Optimizer, step: int) -> None:
        """Put the learning rate of `step` into `optimizer`."""
        for group in optimizer.param_groups:
            group["lr"] = self.lr(step) * group.get("lr_scale", 1.0)

    def end_epoch(self, train_loss: float) -> None:
        """An epoch is over; `train_loss` is its mean loss, by which ``plateau`` goes."""
        if self.settings.kind == "plateau":
            self._plateau.note(train_loss)

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run has to know."""
        return dict(vars(self._plateau))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where `state_dict` was asked for."""
        vars(self._plateau).update(state)


class Plateau:
    """Counts how often a loss has stopped to fall: not by a ten-thousandth for more than `patience` epochs.

    It goes by the loss on the training data, since choices that look at validation labels make the figures measured
    there too good.
    """

    def __init__(self, patience: int) -> None:
        self.patience = patience
        self.drops, self.waited, self.least = 0, 0, math.inf

    def note(self, loss: float) -> None:
        """Take account of an epoch's mean loss."""
        if loss < self.least * (1 - 1e-4):
            self.least, self.waited = loss, 0
            return
        self.waited += 1
        if self.waited > self.patience:
            self.drops, self.waited = self.drops + 1, 0
