"""The step and the epoch.

Nothing in the step loop makes the device wait: the loss stays on the device until the epoch's end.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from timm.utils import ModelEmaV3
from torch import nn

from fasttrain.base.distributed import sum_over_ranks
from fasttrain.base.errors import TrainingError
from fasttrain.base.process import rank
from fasttrain.inference.forward import Amp, autocast
from fasttrain.loading.batch import Batch
from fasttrain.loading.loader import Loader
from fasttrain.training.monitor import LaggedLoss, Monitor
from fasttrain.training.requests import Requests, Wishes
from fasttrain.training.schedule import Schedule


@dataclass
class EpochProgress:
    """How far an epoch's training has come.

    Attributes:
        step: steps done, counted from the epoch's beginning.
        loss: the sum over these steps, of this rank's samples.
    """

    epoch: int
    step: int
    loss: LaggedLoss


@dataclass(frozen=True)
class EpochFigures:
    """What training an epoch gave, over all ranks.

    Attributes:
        complete: whether its last step was done; else a stop was asked for.
        wishes: what was asked for at its end.
        train_loss: mean loss a sample of the whole epoch so far.
        images_per_s, data_wait_fraction: throughput of this process's lifetime, and the share of the time spent waiting
            for the loader.
    """

    complete: bool
    wishes: Wishes
    train_loss: float
    images_per_s: float
    data_wait_fraction: float


@dataclass
class Stepper:
    """Model, optimizer and what belongs to a step.

    Attributes:
        model: the module that is called (wrapped in DDP for several processes).
        ema: moving average of the unwrapped model, or None.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    ema: ModelEmaV3 | None
    device: torch.device
    amp: Amp
    label_smoothing: float
    clip_norm: float
    seed: int
    scaler: torch.amp.GradScaler = field(init=False)

    def __post_init__(self) -> None:
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.amp == "fp16")

    @property
    def unwrapped(self) -> nn.Module:
        """The model without DDP around it."""
        module = getattr(self.model, "module", self.model)
        assert isinstance(module, nn.Module)
        return module

    def step(self, batch: Batch, global_step: int, loss_sum: LaggedLoss) -> None:
        """One optimisation step on a batch; masked samples have no part in the loss."""
        # Seeding by the step's number makes dropout the same after a resume, with no generator state to store.
        torch.manual_seed(hash((self.seed, global_step, rank())) & 0x7FFF_FFFF_FFFF_FFFF)
        self.schedule.apply(self.optimizer, global_step)
        with autocast(self.device, self.amp):
            logits = self.model(batch.images)
        losses = F.cross_entropy(
            logits.float(), batch.labels.clamp(min=0), reduction="none", label_smoothing=self.label_smoothing
        )
        losses = torch.where(batch.valid, losses, 0.0)
        samples = batch.valid.sum()
        self.optimizer.zero_grad()  # gradients become None: the default, which apex takes no argument for
        self.scaler.scale(losses.sum() / samples.clamp(min=1)).backward()
        if self.clip_norm > 0:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.ema is not None:
            self.ema.update(self.unwrapped, step=global_step)
        loss_sum.add(losses.sum(), samples)


def train_epoch(
    stepper: Stepper,
    loader: Loader,
    monitor: Monitor,
    progress: EpochProgress,
    requests: Requests,
    save: Callable[[], None],
) -> EpochFigures:
    """Train an epoch from where `progress` and the loader stand, to its end or until a stop is asked for.

    Args:
        progress: is moved on with every step.
        save: called between steps when it is time to save.
    """
    stepper.model.train()
    first, last = progress.step, progress.step + loader.steps_left
    earlier = progress.loss.totals()[1].clone()
    waited, wishes = 0.0, Wishes()
    started = before = time.monotonic()
    for batch in loader:
        waited += time.monotonic() - before
        stepper.step(batch, progress.epoch * len(loader) + progress.step, progress.loss)
        progress.step += 1
        lately = progress.step - first
        monitor.step(progress.epoch, progress.step, progress.loss, lately, time.monotonic() - started, waited)
        wishes = requests.agreed(progress.step, progress.step == last, stepper.device)
        if wishes.stop:
            break
        if wishes.save and progress.step < last:
            _mean_loss(progress)  # what is saved must be worth going on from
            save()
        before = time.monotonic()
    # The one synchronisation of the epoch; the time is read after it, so that queued GPU work is counted.
    mean_loss = _mean_loss(progress)
    samples = sum_over_ranks(progress.loss.totals()[1] - earlier).item()
    seconds = time.monotonic() - started
    return EpochFigures(progress.step >= last, wishes, mean_loss, samples / seconds, waited / seconds)


def _mean_loss(progress: EpochProgress) -> float:
    """Mean loss a sample over all ranks. It waits for the device.

    Raises:
        TrainingError: it is not finite.
    """
    loss, samples = sum_over_ranks(progress.loss.totals().clone()).tolist()
    mean = loss / samples if samples else float("nan")
    if not math.isfinite(mean):
        raise TrainingError(
            f"the training loss became {mean} in epoch {progress.epoch + 1}; lower --lr, warm up longer or turn off "
            "fp16 (the state and the weights that were saved last are still sound)"
        )
    return float(mean)
