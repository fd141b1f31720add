"""This package's training: `fasttrain.training.run.train`, as `fasttrain train` calls it.

Its loop knows nothing of the benchmark. The `Watch` is told by wrapping three methods: the stepper's change to training
mode, with which an epoch begins, its step, and the validation.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import nn

from fasttrain.inference.forward import Amp
from fasttrain.loading.batch import Batch
from fasttrain.tools.bench.train_job import TrainJob
from fasttrain.tools.bench.train_watch import Watch
from fasttrain.training.monitor import LaggedLoss
from fasttrain.training.run import train
from fasttrain.training.schedule_settings import ScheduleSettings
from fasttrain.training.settings import AugmentSettings, OptimizerSettings, TrainSettings
from fasttrain.training.stepper import Stepper
from fasttrain.training.validation import MAIN, Validation


def equal(job: TrainJob, watch: Watch) -> nn.Module:
    """With the job's settings."""
    return _train(job, watch, equal_settings(job))


def defaults(job: TrainJob, watch: Watch) -> nn.Module:
    """With the defaults of `fasttrain train`."""
    return _train(job, watch, {})


def equal_settings(job: TrainJob) -> dict[str, Any]:
    """The job's settings, as ours are called."""
    return {
        "amp": job.amp,
        "channels_last": job.channels_last,
        "threads": job.threads,
        "model_threads": job.threads,
        "checkpoint_minutes": 0,
        "augment": AugmentSettings(scale=job.scale),
        "schedule": ScheduleSettings(kind="cosine", warmup_epochs=job.warmup_steps / job.steps_per_epoch),
        "optimizer": OptimizerSettings(
            name=job.optimizer,
            lr=job.lr,
            weight_decay=job.weight_decay,
            momentum=job.momentum if job.optimizer == "sgd" else None,
        ),
    }


def _train(job: TrainJob, watch: Watch, chosen: dict[str, Any]) -> nn.Module:
    with TemporaryDirectory(dir=Path(job.beton).parent) as folder, _watched(watch) as trained:
        train(
            TrainSettings(
                data=job.beton,
                val=job.val_beton or None,
                model=job.model,
                weights=job.weights,
                out=str(Path(folder) / "run"),
                epochs=job.epochs,
                batch_size=job.batch_size,
                size=job.size,
                seed=job.seed,
                device=job.device,
                **chosen,
            )
        )
    return trained[0]


@contextmanager
def _watched(watch: Watch) -> Iterator[list[nn.Module]]:
    """Tell `watch` of what happens inside; the model that is trained stands in the list then."""
    trained: list[nn.Module] = []
    begin, step, measure = Stepper.train, Stepper.step, Validation.measure

    def begin_watched(self: Stepper) -> None:
        trained[:] = [self.module]
        begin(self)
        watch.epoch_begins()

    def step_watched(self: Stepper, batch: Batch, global_step: int, loss_sum: LaggedLoss) -> None:
        before = loss_sum.totals().clone()
        step(self, batch, global_step, loss_sum)
        loss, samples = loss_sum.totals() - before
        watch.step(loss / samples, len(batch.images), self.optimizer.param_groups[0]["lr"])

    def measure_watched(self: Validation, model: nn.Module, amp: Amp) -> dict[str, Any]:
        with watch.validating():
            figures = measure(self, model, amp)
        if f"{MAIN}_top1" in figures:
            watch.validated(figures[f"{MAIN}_top1"])
        return figures

    Stepper.train, Stepper.step, Validation.measure = (  # type: ignore[method-assign]
        begin_watched,
        step_watched,
        measure_watched,
    )
    try:
        yield trained
    finally:
        Stepper.train, Stepper.step, Validation.measure = begin, step, measure  # type: ignore[method-assign]
