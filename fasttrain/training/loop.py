"""The step and the epoch.

Nothing in the step loop makes the device wait: the loss stays on the device until the epoch's end.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from fasttrain.base.distributed import sum_over_ranks
from fasttrain.base.errors import TrainingError
from fasttrain.inference.memory import is_out_of_memory
from fasttrain.loading.batch import Batch
from fasttrain.loading.loader import Loader
from fasttrain.training.fit import too_large
from fasttrain.training.monitor import LaggedLoss, Monitor
from fasttrain.training.requests import Requests, Wishes
from fasttrain.training.stepper import Stepper


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
    stepper.train()
    first, last = progress.step, progress.step + loader.steps_left
    first_step = stepper.schedule.table.first[progress.epoch]
    earlier = progress.loss.totals()[1].clone()
    waited, wishes = 0.0, Wishes()
    started = before = time.monotonic()
    for batch in loader:
        waited += time.monotonic() - before
        monitor.samples(progress.epoch, batch)
        if not _step_fits(stepper, batch, first_step + progress.step, progress):
            raise too_large(stepper, batch)
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


def _step_fits(stepper: Stepper, batch: Batch, global_step: int, progress: EpochProgress) -> bool:
    """Take a step; False if the memory did not suffice for it. (The error is gone then, with the tensors it held.)"""
    try:
        stepper.step(batch, global_step, progress.loss)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return False
    return True


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
