"""The step and the epoch.

Nothing in the step loop makes the device wait: the loss stays on the device until the epoch's end, and only a job of
several processes looks every `AGREE_EVERY` steps, and at the epoch's end, whether one of them was told to stop.
"""

import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType

import torch
import torch.nn.functional as F
from timm.utils import ModelEmaV3
from torch import nn

from fasttrain.base.distributed import sum_over_ranks
from fasttrain.base.errors import TrainingError
from fasttrain.base.process import rank, world_size
from fasttrain.inference.forward import Amp, autocast
from fasttrain.loading.batch import Batch
from fasttrain.loading.loader import Loader
from fasttrain.training.monitor import LaggedLoss, Monitor
from fasttrain.training.schedule import Schedule

AGREE_EVERY = 32
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class StopRequest:
    """Set by Ctrl-C, SIGTERM or SIGUSR1 (which clusters send before they take a machine back).

    The loop looks at it between steps, so that no step is left half done.
    """

    def __init__(self) -> None:
        self.signal_name: str | None = None

    @contextmanager
    def listening(self) -> Iterator["StopRequest"]:
        """Catch the signals while the block runs; a second one acts at once."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        previous = {number: signal.signal(number, self._remember) for number in STOP_SIGNALS}
        try:
            yield self
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        if self.signal_name is not None:
            raise KeyboardInterrupt
        self.signal_name = signal.Signals(number).name

    def agreed(self, step: int, last: bool, device: torch.device) -> bool:
        """True if any rank was asked to stop. All ranks call it after the same step, so that all stop there."""
        if world_size() == 1:
            return self.signal_name is not None
        if step % AGREE_EVERY and not last:
            return False
        flag = torch.tensor(float(self.signal_name is not None), device=device)
        return bool(sum_over_ranks(flag).item())


@dataclass
class EpochFigures:
    """What an epoch's training gave, over all ranks.

    Attributes:
        steps: optimisation steps done, counted from the epoch's beginning.
        stopped: a stop was asked for; the epoch may be over all the same.
        train_loss: mean loss a sample of the steps done in this process's lifetime.
        images_per_s, data_wait_fraction: throughput, and the share of the time spent waiting for the loader.
    """

    steps: int
    stopped: bool
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
        self.optimizer.zero_grad(set_to_none=True)
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
    stepper: Stepper, loader: Loader, monitor: Monitor, epoch: int, first_step: int, stop: StopRequest
) -> EpochFigures:
    """Train an epoch from step `first_step` (0 unless resumed in its midst; the loader stands there already)."""
    stepper.model.train()
    loss_sum = LaggedLoss(stepper.device)
    steps, waited = first_step, 0.0
    started = before = time.monotonic()
    stopped = False
    for batch in loader:
        waited += time.monotonic() - before
        stepper.step(batch, epoch * len(loader) + steps, loss_sum)
        monitor.step(epoch, steps, loss_sum, time.monotonic() - started, waited)
        steps += 1
        stopped = stop.agreed(steps, steps == len(loader), stepper.device)
        if stopped:
            break
        before = time.monotonic()
    # The one synchronisation of the epoch; the time is read after it, so that queued GPU work is counted.
    loss, samples = sum_over_ranks(loss_sum.totals().clone()).tolist()
    seconds = time.monotonic() - started
    mean_loss = loss / samples if samples else float("nan")
    if not math.isfinite(mean_loss):
        raise TrainingError(
            f"the training loss became {mean_loss} in epoch {epoch + 1}; lower --lr, warm up longer or turn off fp16 "
            "(the checkpoint of the epoch before is in the run folder)"
        )
    return EpochFigures(steps, stopped, mean_loss, samples / seconds, waited / seconds)
