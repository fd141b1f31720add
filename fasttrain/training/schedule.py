"""The learning rate of each step: a function of the step alone, but for ``plateau``, which remembers the losses."""

import math
from typing import Any

import torch

from fasttrain.training.epochs import EpochTable
from fasttrain.training.schedule_settings import LrWithBatch, ScheduleSettings, multiple_of

_RISE = 0.3  # of a one-cycle run
_CYCLE_START = 1 / 25  # of its peak
_DROPS_OF_1X = (7, 10)  # epochs
_POWERS: dict[LrWithBatch, float] = {"none": 0.0, "linear": 1.0, "sqrt": 0.5}


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
    """Sets the learning rate of every parameter group before a step: `lr` times the group's `lr_scale`.

    Smooth shapes go by the share of the run's steps that are done, falls and warm-up by epochs, however many steps
    these have.

    Args:
        peak_lr: for the batch size of the first epoch.
        table: the run's epochs.
        lr_with_batch: what a batch of k times as many samples makes of it: nothing, k times as much (``linear``; Goyal
            et al., arXiv 1706.02677), or the square root of that (``sqrt``; Krizhevsky, arXiv 1404.5997).
    """

    def __init__(
        self, settings: ScheduleSettings, peak_lr: float, table: EpochTable, lr_with_batch: LrWithBatch = "none"
    ) -> None:
        self.settings, self.peak_lr, self.table = settings, peak_lr, table
        batches = [shape.batch_size for shape in table.shapes]
        self._factors = [(batch / batches[0]) ** _POWERS[lr_with_batch] for batch in batches]
        self.warmup_steps = self._warmup()
        self._plateau = Plateau(settings.patience)

    def _warmup(self) -> int:
        """Steps of the rise, never more than half of the run."""
        settings, multiple = self.settings, multiple_of(self.settings.kind)
        if settings.warmup_epochs is not None:
            steps = self.table.steps_in(settings.warmup_epochs)
        elif settings.kind == "onecycle":
            steps = _RISE * self.table.steps
        else:
            steps = self.table.steps_in(multiple or 1.0)
        return min(round(steps), self.table.steps // 2)

    def share(self, step: int) -> float:
        """Learning rate of a step, counted from 0 over all epochs, as a share of the peak for its batch size."""
        if step < self.warmup_steps:
            if self.settings.kind == "onecycle":
                return 1 - (1 - _CYCLE_START) * 0.5 * (1 + math.cos(math.pi * step / self.warmup_steps))
            return (step + 1) / (self.warmup_steps + 1)
        progress = (step - self.warmup_steps) / max(1, self.table.steps - 1 - self.warmup_steps)
        times = drops(self.settings, self.table.epoch_of(step)) + self._plateau.drops
        first, last = self.settings.span
        return shape(self.settings, first + (last - first) * min(1.0, progress)) * self.settings.gamma**times

    def lr(self, step: int) -> float:
        """Learning rate of a step, counted from 0 over all epochs."""
        return self.peak_lr * self._factors[self.table.epoch_of(step)] * self.share(step)

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
