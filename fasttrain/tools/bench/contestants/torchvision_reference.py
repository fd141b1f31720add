"""torchvision's reference training for classification (``references/classification``, which its package does not hold).

Of the reference: a DataLoader over an ImageFolder with the Pillow presets, workers that start anew each epoch, the loss
and both accuracies read after every step. Not of it, so that all do the same: the model is timm's, the learning rate is
set for each step and not for each epoch, and the rest of an epoch that fills no batch is left out.
"""

import time
from collections import defaultdict, deque
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, RandomSampler, SequentialSampler

from fasttrain.tools.bench.contestants.train_parts import (
    NumberedFolder,
    eval_transform,
    hits,
    make_model,
    make_optimizer,
    make_schedule,
    precision,
    train_transform,
)
from fasttrain.tools.bench.train_job import TrainJob
from fasttrain.tools.bench.train_watch import Watch

PRINT_FREQ = 10
WINDOW = 20  # values that a printed median goes over


class Meter:
    """Recent values and the mean of all."""

    def __init__(self) -> None:
        self._recent: deque[float] = deque(maxlen=WINDOW)
        self._total, self._count = 0.0, 0

    def add(self, value: float, count: int = 1) -> None:
        self._recent.append(value)
        self._total += value * count
        self._count += count

    @property
    def mean(self) -> float:
        return self._total / self._count

    def __str__(self) -> str:
        return f"{torch.tensor(list(self._recent)).median().item():.4f} ({self.mean:.4f})"


def equal(job: TrainJob, watch: Watch) -> nn.Module:
    """With the job's settings."""
    training = NumberedFolder(job.files, train_transform(job))
    loader = _loader(job, training, sampler=RandomSampler(training), drop_last=True)
    validation = None
    if job.val_files:
        images = NumberedFolder(job.val_files, eval_transform(job))
        validation = _loader(job, images, sampler=SequentialSampler(images))
    model = make_model(job, job.channels_last)
    optimizer = make_optimizer(job, model)
    schedule = make_schedule(job, optimizer)
    for epoch in range(job.epochs):
        _train_one_epoch(job, watch, epoch, model, loader, optimizer, schedule)
        if validation is not None:
            with watch.validating():
                top1 = _evaluate(job, model, validation)
            watch.validated(top1)
    return model


def _loader(job: TrainJob, images: NumberedFolder, **options: Any) -> Any:
    pinned = job.device.startswith("cuda")
    return DataLoader(images, batch_size=job.batch_size, num_workers=job.threads, pin_memory=pinned, **options)


def _train_one_epoch(
    job: TrainJob,
    watch: Watch,
    epoch: int,
    model: nn.Module,
    loader: Any,
    optimizer: torch.optim.Optimizer,
    schedule: Any,
) -> None:
    model.train()
    meters: dict[str, Meter] = defaultdict(Meter)
    criterion = nn.CrossEntropyLoss()
    watch.epoch_begins()
    for number, (images, labels) in enumerate(loader):
        started = time.time()
        images, labels = _moved(job, images), labels.to(job.device)
        with precision(job):
            output = model(images)
            loss = criterion(output, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        lr = optimizer.param_groups[0]["lr"]
        schedule.step()
        size = images.shape[0]
        for name, highest in (("acc1", 1), ("acc5", 5)):
            meters[name].add(100 * hits(output, labels, highest).item() / size, size)
        meters["loss"].add(loss.item())
        meters["lr"].add(lr)
        meters["img/s"].add(size / (time.time() - started))
        watch.step(loss, size, lr)
        if number % PRINT_FREQ == 0:
            print(f"Epoch: [{epoch}] [{number}]", *(f"{name}: {meter}" for name, meter in meters.items()), sep="  ")


def _evaluate(job: TrainJob, model: nn.Module, loader: Any) -> float:
    """Top-1, 0–1."""
    model.eval()
    meters: dict[str, Meter] = defaultdict(Meter)
    criterion = nn.CrossEntropyLoss()
    with torch.inference_mode():
        for images, labels in loader:
            images, labels = _moved(job, images), labels.to(job.device, non_blocking=True)
            with precision(job):
                output = model(images)
                loss = criterion(output, labels)
            meters["loss"].add(loss.item())
            for name, highest in (("acc1", 1), ("acc5", 5)):
                meters[name].add(hits(output, labels, highest).item() / len(images), len(images))
    return meters["acc1"].mean


def _moved(job: TrainJob, images: torch.Tensor) -> torch.Tensor:
    moved = images.to(job.device, non_blocking=True)
    return moved.contiguous(memory_format=torch.channels_last) if job.channels_last else moved
