"""The learning rate as a pure function of the step, so that a resumed run needs no scheduler state."""

import math

import torch

from fasttrain.training.settings import ScheduleSettings


def lr_share(step: int, total_steps: int, warmup_steps: int, final_share: float) -> float:
    """Learning rate of a step (0-based) as a share of the peak.

    Linear warm-up to 1 over `warmup_steps`, then half a cosine down to `final_share` at the last step (SGDR without
    restarts, Loshchilov & Hutter, arXiv 1608.03983).
    """
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    progress = (step - warmup_steps) / max(1, total_steps - 1 - warmup_steps)
    return final_share + (1 - final_share) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


class Schedule:
    """Sets the learning rate of every parameter group before a step."""

    def __init__(self, settings: ScheduleSettings, peak_lr: float, steps_per_epoch: int, epochs: int) -> None:
        self.peak_lr = peak_lr
        self.total_steps = steps_per_epoch * epochs
        self.warmup_steps = min(round(settings.warmup_epochs * steps_per_epoch), self.total_steps // 2)
        self.final_share = settings.final_lr_share

    def lr(self, step: int) -> float:
        """Learning rate of a step, counted from 0 over all epochs."""
        return self.peak_lr * lr_share(step, self.total_steps, self.warmup_steps, self.final_share)

    def apply(self, optimizer: torch.optim.Optimizer, step: int) -> None:
        """Put the learning rate of `step` into `optimizer`."""
        for group in optimizer.param_groups:
            group["lr"] = self.lr(step)
