"""timm's loaders, optimizer, scheduler and meters, in the loop of its train.py (which its package does not hold).

The one liberty is in its favour: the loss is read once in 50 steps, not after each, so that no GPU waits for it.
"""

import logging
import time
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from timm.data import create_dataset, create_loader
from timm.loss import LabelSmoothingCrossEntropy
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler, create_scheduler_v2
from timm.scheduler.scheduler import Scheduler
from timm.utils import AverageMeter, accuracy
from torch import nn

from fasttrain.tools.bench.contestants.train_parts import make_model, precision
from fasttrain.tools.bench.train_job import DEFAULTS, TrainJob
from fasttrain.tools.bench.train_watch import Watch

LOG_INTERVAL = 50
_log = logging.getLogger("train")


@dataclass(frozen=True)
class Defaults:
    """Those of train.py's options, timm 1.0; the batch size stands in the job."""

    lr_base: float = 0.1  # at `lr_base_size` images a step, in proportion to them for SGD
    lr_base_size: int = 256
    weight_decay: float = 2e-5
    warmup_lr: float = 1e-5
    warmup_epochs: int = 5
    smoothing: float = 0.1
    color_jitter: float = 0.4
    interpolation: str = "random"
    workers: int = 4


TRAIN_PY = Defaults()


def equal(job: TrainJob, watch: Watch) -> nn.Module:
    """With the job's settings."""
    model = make_model(job, job.channels_last)
    optimizer = make_optimizer(job, model)
    looks = {"scale": job.scale, "color_jitter": None, "interpolation": "bilinear"}
    loader = _loader(job, job.files, job.threads, is_training=True, **looks)
    scheduler = make_scheduler(job, optimizer)
    return _train(job, watch, model, loader, optimizer, scheduler, nn.CrossEntropyLoss(), job.threads)


def make_optimizer(job: TrainJob, model: nn.Module) -> torch.optim.Optimizer:
    """timm's ``sgd`` is Nesterov's, as ours."""
    return create_optimizer_v2(model, job.optimizer, lr=job.lr, weight_decay=job.weight_decay, momentum=job.momentum)


def make_scheduler(job: TrainJob, optimizer: torch.optim.Optimizer) -> CosineLRScheduler:
    """timm's own, stepped with each update; its numbers are chosen for the rates of `TrainJob.lr_share`."""
    return CosineLRScheduler(
        optimizer,
        t_initial=job.fall_steps,
        warmup_t=job.warmup_steps,
        warmup_lr_init=job.lr / (job.warmup_steps + 1),
        warmup_prefix=True,
        t_in_epochs=False,
    )


def defaults(job: TrainJob, watch: Watch) -> nn.Module:
    """With the defaults of train.py."""
    model = make_model(job, channels_last=False)
    optimizer = create_optimizer_v2(
        model,
        "sgd",
        lr=TRAIN_PY.lr_base * job.batch_size / TRAIN_PY.lr_base_size,
        weight_decay=TRAIN_PY.weight_decay,
        momentum=0.9,
    )
    scheduler, _ = create_scheduler_v2(
        optimizer,
        "cosine",
        num_epochs=job.epochs,
        warmup_epochs=TRAIN_PY.warmup_epochs,
        warmup_lr=TRAIN_PY.warmup_lr,
        min_lr=0.0,
    )
    looks = {"color_jitter": TRAIN_PY.color_jitter, "interpolation": TRAIN_PY.interpolation}
    loader = _loader(job, job.files, TRAIN_PY.workers, is_training=True, **looks)
    loss_function = LabelSmoothingCrossEntropy(TRAIN_PY.smoothing)
    return _train(job, watch, model, loader, optimizer, scheduler, loss_function, TRAIN_PY.workers)


def _loader(job: TrainJob, folder: str, workers: int, **looks: Any) -> Any:
    """With timm's prefetcher and persistent workers."""
    names = {f"{number:05d}": number for number in range(job.classes)}
    device = torch.device(job.device)
    return create_loader(
        create_dataset("", folder, class_map=names),
        (3, job.size, job.size),
        job.batch_size,
        mean=job.mean,
        std=job.std,
        num_workers=workers,
        pin_memory=device.type == "cuda" and job.settings != DEFAULTS,
        device=device,
        **looks,
    )


def _train(
    job: TrainJob,
    watch: Watch,
    model: nn.Module,
    loader: Any,
    optimizer: torch.optim.Optimizer,
    scheduler: Scheduler,
    loss_function: nn.Module,
    workers: int,
) -> nn.Module:
    validation = None
    if job.val_files:
        looks = {"crop_pct": job.crop_pct, "crop_mode": job.crop_mode, "interpolation": job.interpolation}
        validation = _loader(job, job.val_files, workers, is_training=False, **looks)
    for epoch in range(job.epochs):
        _train_one_epoch(job, watch, epoch, model, loader, optimizer, scheduler, loss_function)
        metric = None
        if validation is not None:
            with watch.validating():
                metric = _validate(job, model, validation)
            watch.validated(metric)
        scheduler.step(epoch + 1, metric)
    return model


def _train_one_epoch(
    job: TrainJob,
    watch: Watch,
    epoch: int,
    model: nn.Module,
    loader: Any,
    optimizer: torch.optim.Optimizer,
    scheduler: Scheduler,
    loss_function: nn.Module,
) -> None:
    losses, update_times = AverageMeter(), AverageMeter()
    model.train()
    watch.epoch_begins()
    updated = time.time()
    updates = epoch * len(loader)
    for number, (images, labels) in enumerate(loader):
        if _channels_last(job):
            images = images.contiguous(memory_format=torch.channels_last)
        with _precision(job):
            loss = loss_function(model(images), labels)
        loss.backward()
        optimizer.step()
        updates += 1
        optimizer.zero_grad()
        now = time.time()
        update_times.update(now - updated)
        updated = now
        watch.step(loss, len(images), optimizer.param_groups[0]["lr"])
        if number % LOG_INTERVAL == 0:
            losses.update(loss.item(), images.size(0))
            _log.info("Train: %d [%d] Loss: %.3g Time: %.3fs", epoch, number, losses.avg, update_times.avg)
        scheduler.step_update(num_updates=updates, metric=losses.avg)


def _validate(job: TrainJob, model: nn.Module, loader: Any) -> float:
    """Top-1, 0–1."""
    losses, top1, top5 = AverageMeter(), AverageMeter(), AverageMeter()
    model.eval()
    with torch.no_grad():
        for images, labels in loader:
            if _channels_last(job):
                images = images.contiguous(memory_format=torch.channels_last)
            with _precision(job):
                logits = model(images)
                loss = nn.functional.cross_entropy(logits, labels)
            first, fifth = accuracy(logits, labels, topk=(1, 5))
            losses.update(loss.item(), images.size(0))
            top1.update(first.item(), images.size(0))
            top5.update(fifth.item(), images.size(0))
    return top1.avg / 100


def _channels_last(job: TrainJob) -> bool:
    return job.channels_last and job.settings != DEFAULTS


def _precision(job: TrainJob) -> Any:
    return nullcontext() if job.settings == DEFAULTS else precision(job)
