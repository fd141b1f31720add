"""What a training waits for: the same steps on made-up images, on one real batch again and again, and on real data."""

import statistics
import time
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from fasttrain.base.console import say
from fasttrain.base.distributed import process_group
from fasttrain.base.errors import ConfigError
from fasttrain.base.process import available_cores, default_threads, world_size
from fasttrain.base.runs import RunFolder
from fasttrain.kernels.loading import JPEG, OTHER
from fasttrain.loading.backend import available_backends
from fasttrain.loading.batch import Batch
from fasttrain.loading.dataset import ImageDataset, readable_sizes
from fasttrain.loading.loader import Loader
from fasttrain.tools.doctor.advice import Bottleneck, Situation, advise
from fasttrain.training.monitor import LaggedLoss
from fasttrain.training.run import Trainer
from fasttrain.training.settings import TrainSettings
from fasttrain.training.stepper import Stepper

WARM_UP = 4  # steps or batches that are not counted: as many as a loader makes ahead, and one
LEAST = 2  # that are, however long they take
ROUNDS = 3
KEPT_UP = 0.95  # share of the model's own speed at which loading keeps up
LOOKED_AT = 256  # images whose size and kind are looked at


@dataclass(frozen=True)
class Speeds:
    """Images a second.

    Attributes:
        synthetic: training steps on made-up images.
        cached: training steps on one batch of the data, again and again.
        loader: the loader alone.
        real: training steps on batches as the loader makes them.
        data_wait_fraction: share of that time in which the step waited for the loader.
    """

    synthetic: float
    cached: float
    loader: float
    real: float
    data_wait_fraction: float

    @property
    def bottleneck(self) -> Bottleneck:
        """``both`` where each alone is fast enough: together they want more than the machine has."""
        if self.real >= KEPT_UP * self.cached:
            return "model"
        return "loader" if self.loader < self.cached / KEPT_UP else "both"


def find_bottleneck(settings: TrainSettings, seconds: float = 5.0) -> dict[str, Any]:
    """Run training steps as `settings` say, about `seconds` of each kind. Nothing is written.

    Returns:
        data, model, device, amp, batch_size, size, threads, backend; samples; indexed: how many of them the loader
        decodes by their random-access index; images_per_s (synthetic, cached, loader, real);
        data_wait_fraction; bottleneck (``model``, ``loader`` or ``both``); advice: what to change; verdict: all in a
        line.

    Raises:
        ConfigError: this is one of several processes.
        FasttrainError: the data or the model cannot be trained on.
    """
    if world_size() > 1:
        raise ConfigError("doctor looks at one process; start it without torchrun")
    with process_group(settings.device) as device, Trainer(settings, device, RunFolder(settings.out)) as trainer:
        speeds = _measure(trainer, seconds)
        situation = _situation(trainer, speeds.bottleneck)
        figures = {name: round(getattr(speeds, name), 1) for name in ("synthetic", "cached", "loader", "real")}
        advice = advise(situation)
        return {
            "data": trainer.train_loader.dataset.name,
            "model": settings.model,
            "device": str(device),
            "amp": trainer.stepper.amp,
            "batch_size": settings.batch_size,
            "size": trainer.task.eval_view.size,
            "threads": situation.threads,
            "backend": situation.backend,
            "samples": len(trainer.train_loader.labels),
            "indexed": trainer.train_loader.indexed,
            "images_per_s": figures,
            "data_wait_fraction": round(speeds.data_wait_fraction, 4),
            "bottleneck": speeds.bottleneck,
            "advice": advice,
            "verdict": _verdict(speeds, advice),
        }


def _verdict(speeds: Speeds, advice: list[str]) -> str:
    """All of it in one line."""
    figures = (
        f"{speeds.real:,.0f} images/s on real data, {speeds.cached:,.0f} without waiting for it, the loader alone "
        f"{speeds.loader:,.0f}; data wait {speeds.data_wait_fraction:.0%}"
    )
    found = {
        "model": "The model is the bottleneck, and loading keeps up",
        "loader": "The loader is the bottleneck",
        "both": "The loader alone is fast enough, but not beside the training",
    }[speeds.bottleneck]
    return f"{found} ({figures}). To go faster: {'; '.join(advice[:2])}."


def _measure(trainer: Trainer, seconds: float) -> Speeds:
    """The four kinds of run in turns, so that what else the machine does is spread over them; medians."""
    loader, stepper = trainer.train_loader, trainer.stepper
    stepper.model.train()
    with closing(_endless(loader)) as batches:
        first = next(batches)
    labels = torch.randint(trainer.num_classes, first.labels.shape, device=first.labels.device)
    made_up = first._replace(images=torch.randn_like(first.images), labels=labels, valid=torch.ones_like(first.valid))
    found: dict[str, list[tuple[float, float]]] = {"synthetic": [], "cached": [], "loader": [], "real": []}
    for turn in range(ROUNDS):
        say(f"round {turn + 1}/{ROUNDS}: made-up images, one batch again and again, the loader alone, real data")
        found["synthetic"].append(_train_on(_again(made_up), stepper, seconds / ROUNDS))
        found["cached"].append(_train_on(_again(first), stepper, seconds / ROUNDS))
        with closing(_endless(loader)) as batches:  # whose threads rest when it is closed
            found["loader"].append((_load(batches, loader, seconds / ROUNDS), 0.0))
        with closing(_endless(loader)) as batches:
            found["real"].append(_train_on(batches, stepper, seconds / ROUNDS))
    rates = {name: statistics.median(rate for rate, _ in runs) for name, runs in found.items()}
    return Speeds(**rates, data_wait_fraction=statistics.median(share for _, share in found["real"]))


def _endless(loader: Loader) -> Generator[Batch, None, None]:
    while True:
        yield from loader


def _again(batch: Batch) -> Iterator[Batch]:
    while True:
        yield batch


def _load(batches: Iterator[Batch], loader: Loader, seconds: float) -> float:
    """Images a second that come out of a loader."""
    for _ in range(WARM_UP):
        next(batches)
    _wait_for(loader.device)
    count, started = 0, time.monotonic()
    while count < LEAST or time.monotonic() - started < seconds:
        next(batches)
        count += 1
    _wait_for(loader.device)
    return count * loader.batch_size / (time.monotonic() - started)


def _train_on(batches: Iterator[Batch], stepper: Stepper, seconds: float) -> tuple[float, float]:
    """Images a second of training steps, and the share of the time that they wait for batches."""
    loss = LaggedLoss(stepper.device)
    for _ in range(WARM_UP):
        stepper.step(next(batches), 0, loss)  # always with the learning rate of the first step
    _wait_for(stepper.device)
    count, images, waited = 0, 0, 0.0
    started = before = time.monotonic()
    while count < LEAST or before - started < seconds:
        batch = next(batches)
        waited += time.monotonic() - before
        stepper.step(batch, 0, loss)
        count, images, before = count + 1, images + len(batch.ids), time.monotonic()
    _wait_for(stepper.device)
    total = time.monotonic() - started
    return images / total, waited / total


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _situation(trainer: Trainer, bottleneck: Bottleneck) -> Situation:
    settings, data = trainer.settings, trainer.train_loader.dataset
    names = [settings.data] if isinstance(settings.data, str) else settings.data
    pixels, portable_share, unindexed_share = _look_at(data)
    return Situation(
        bottleneck=bottleneck,
        device=trainer.device.type,
        amp=trainer.stepper.amp,
        backend=available_backends()[0] if settings.backend == "auto" else settings.backend,
        threads=settings.threads or default_threads(),
        budget=settings.memory_budget is not None,
        cores=available_cores(),
        is_beton=all(name.endswith(".beton") for name in names),
        pixels_per_view=pixels / trainer.task.eval_view.size**2,
        portable_share=portable_share,
        unindexed_share=unindexed_share if trainer.train_loader.uses_index else 0.0,
    )


def _look_at(data: ImageDataset) -> tuple[float, float, float]:
    """Mean pixels of an image; the share of those that are neither JPEGs nor stored as pixels; the share of JPEGs in a
    `.beton` that have no random-access index."""
    rows = np.unique(np.linspace(0, data.num_samples - 1, min(LOOKED_AT, data.num_samples)).astype(np.int64))
    sizes, unreadable = readable_sizes(data, rows)
    rows, sizes = (np.delete(array, list(unreadable), axis=0) for array in (rows, sizes))
    if not len(rows):
        return 0.0, 0.0, 0.0
    stored = data.stored(rows).stored
    unindexed = (stored == JPEG) & ~data.are_indexed(rows)
    return float(sizes.prod(1).mean()), float((stored == OTHER).mean()), float(unindexed.mean())
