"""A process that runs one contestant of the loader benchmark once: ``python -m … JOB.json``."""

import importlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from fasttrain.tools.bench.contestant_process import print_figures
from fasttrain.tools.bench.loader_job import LoaderJob
from fasttrain.tools.bench.memory import PeakMemory
from fasttrain.tools.bench.wrong_output import WrongOutputError

MEAN_TOLERANCE = 0.35  # of normalised values; pixels that were not normalised are off by 1 and more
STD_TOLERANCE = 1.5  # as a factor
STEP = 8  # between pixels that are looked at


class OutputCheck:
    """Looks at every batch: shape and dtype, and a sixty-fourth of its pixels for the statistics at the end.

    What memory it takes, it takes at once: more would count as the contestant's.
    """

    def __init__(self, job: LoaderJob) -> None:
        self._job = job
        self._shape = (job.batch_size, 3, job.size, job.size)
        self._dtype = getattr(torch, job.dtype)
        side = -(-job.size // STEP)
        self._values = torch.ones(job.batch_size, 3, side, side)
        self._squares = torch.ones_like(self._values)
        self._sums = torch.zeros(2, 3, dtype=torch.float64)  # of the means of values and squares, by channel
        self._batches = 0

    def __call__(self, batch: torch.Tensor) -> None:
        """Take a batch in.

        Raises:
            WrongOutputError: shape, dtype or a value that is not finite.
        """
        if tuple(batch.shape) != self._shape or batch.dtype != self._dtype:
            raise WrongOutputError(
                f"its batches are {tuple(batch.shape)} {batch.dtype}, and not {self._shape} {self._dtype}"
            )
        if not self._batches and not all(torch.isfinite(image).all() for image in batch):
            raise WrongOutputError("its first batch holds values that are not finite")
        self._values.copy_(batch[:, :, ::STEP, ::STEP])
        torch.mul(self._values, self._values, out=self._squares)
        for total, values in zip(self._sums, (self._values, self._squares), strict=True):
            total += values.mean((2, 3)).double().mean(0)
        self._batches += 1

    def finish(self) -> None:
        """Compare mean and standard deviation with the images'.

        Raises:
            WrongOutputError: they are off by more than random crops explain.
        """
        mean, square = self._sums / self._batches
        if not torch.isfinite(square).all():
            raise WrongOutputError("its batches hold values that are not finite")
        std = (square - mean**2).clamp(min=0).sqrt()
        for channel, (expected, spread) in enumerate(zip(self._job.mean, self._job.std, strict=True)):
            found, width = float(mean[channel]), float(std[channel])
            if abs(found - expected) > MEAN_TOLERANCE or not 1 / STD_TOLERANCE < width / spread < STD_TOLERANCE:
                raise WrongOutputError(
                    f"channel {channel} of its images has mean {found:.2f} and standard deviation {width:.2f}, "
                    f"the images themselves {expected:.2f} and {spread:.2f}"
                )


def main() -> None:
    """Measure, check, and print the figures."""
    job = LoaderJob.read(Path(sys.argv[1]))
    print_figures(lambda: run(job))


def run(job: LoaderJob) -> dict[str, Any]:
    """Time one contestant.

    Returns:
        value: images/s after the warm-up; first_batch_s: from making the loader, with imports done; peak_bytes: memory
        above that of the imports, None where the system does not tell; further figures of the contestant's own.
    """
    module_name, _, function = job.function.partition(":")
    module = importlib.import_module(module_name)  # before the clock starts
    torch.set_num_threads(job.threads)
    check, memory = OutputCheck(job), PeakMemory()
    started = time.monotonic()
    batches: Iterator[torch.Tensor] = iter(getattr(module, function)(job))
    first_s = begun = 0.0
    for number in range(job.warmup + job.counted):
        batch = next(batches, None)
        if batch is None:
            raise WrongOutputError(f"it ended after {number} of {job.warmup + job.counted} batches")
        if number == 0:
            first_s = time.monotonic() - started
        check(batch)
        del batch  # a loader may want its memory back
        if number + 1 == job.warmup:
            begun = time.monotonic()
    seconds = time.monotonic() - begun
    peak = memory.stop()
    check.finish()
    figures = {"value": job.counted * job.batch_size / seconds, "first_batch_s": round(first_s, 3), "peak_bytes": peak}
    further = getattr(module, "further_figures", None)
    return figures if further is None else {**figures, **further(job, function)}


if __name__ == "__main__":
    main()
