"""The clock of the training benchmark, which every contestant is held against."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from fasttrain.tools.bench.train_job import TrainJob
from fasttrain.tools.bench.wrong_output import WrongOutputError


class Watch:
    """Runs from an epoch's beginning, before its first batch is asked for, to the end of its last step.

    Making model and loaders, validating and saving are not counted as training. A GPU is waited for where the clock
    stops, and at the end of the steps that are not counted, and nowhere else.

    Attributes:
        images: trained on so far.
        lrs: learning rate of each step.
        train_s, validation_s: seconds so far.
        curve: after each validation, seconds of training until then and the top-1 that the contestant found.
    """

    def __init__(self, job: TrainJob) -> None:
        self._job = job
        self.images = 0
        self.lrs: list[float] = []
        self.train_s = self.validation_s = 0.0
        self.curve: list[tuple[float, float]] = []
        self._losses: list[torch.Tensor] = []
        self._counted_from = (0.0, 0)  # seconds and images
        self._began: float | None = None

    @property
    def steps(self) -> int:
        """Done so far."""
        return len(self._losses)

    def epoch_begins(self) -> None:
        """The first batch of an epoch is asked for next."""
        self._wait()
        self._began = time.monotonic()

    def step(self, loss: torch.Tensor, images: int, lr: float) -> None:
        """A step was taken.

        Args:
            loss: mean of its batch, 0-dim, on the device; it is read when all is over.
            lr: that the step was taken with.

        Raises:
            WrongOutputError: it belongs to no epoch.
        """
        if self._began is None:
            raise WrongOutputError(f"it took step {self.steps + 1} outside of an epoch of {self._job.steps_per_epoch}")
        self._losses.append(loss.detach())
        self.lrs.append(lr)
        self.images += images
        if self.steps == self._job.uncounted:
            self._wait()
            self._counted_from = (self.train_s + time.monotonic() - self._began, self.images)
        if self.steps % self._job.steps_per_epoch == 0:
            self._wait()
            self.train_s += time.monotonic() - self._began
            self._began = None

    @contextmanager
    def validating(self) -> Iterator[None]:
        """Inside, the contestant validates."""
        started = time.monotonic()
        yield
        self._wait()
        self.validation_s += time.monotonic() - started

    def validated(self, top1: float) -> None:
        """What a validation gave, 0–1."""
        self.curve.append((self.train_s, top1))

    @property
    def images_per_s(self) -> float:
        """Behind the uncounted steps."""
        seconds, images = self._counted_from
        return (self.images - images) / (self.train_s - seconds)

    @property
    def losses(self) -> list[float]:
        """Mean of each step's batch. It waits for the device."""
        return torch.stack([loss.float().cpu() for loss in self._losses]).tolist() if self._losses else []

    @property
    def target_s(self) -> float | None:
        """Seconds of training until a validation first gave the target; None if none did, or none was set."""
        target = self._job.target
        return next((seconds for seconds, top1 in self.curve if target is not None and top1 >= target), None)

    def _wait(self) -> None:
        if self._job.device.startswith("cuda"):
            torch.cuda.synchronize()
