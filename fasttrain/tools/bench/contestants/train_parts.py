"""What the contestants of the training benchmark share: the same start, optimizer and views, by torch's own means."""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from timm.optim import param_groups_weight_decay
from torch import nn
from torchvision import datasets, transforms
from torchvision.transforms import InterpolationMode

from fasttrain.models.create import create_model
from fasttrain.models.weights import load_weights
from fasttrain.tools.bench.train_job import TrainJob


def make_model(job: TrainJob, channels_last: bool) -> nn.Module:
    """timm's model with the weights that all start from, on the job's device."""
    model = create_model(job.model, job.classes, size=job.size)
    load_weights(model, job.weights)
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    return model.to(device=job.device, memory_format=memory_format)  # type: ignore[call-overload]


def make_optimizer(job: TrainJob, model: nn.Module) -> torch.optim.Optimizer:
    """torch's, in the form that it chooses itself; vectors and what the model names are not decayed."""
    named = getattr(model, "no_weight_decay", None)
    groups = param_groups_weight_decay(
        model, job.weight_decay, no_weight_decay_list=tuple(named()) if callable(named) else ()
    )
    if job.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=job.lr, momentum=job.momentum, nesterov=True)
    return torch.optim.AdamW(groups, lr=job.lr)


def make_schedule(job: TrainJob, optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LambdaLR:
    """To be stepped after each step."""
    return torch.optim.lr_scheduler.LambdaLR(optimizer, job.lr_share)


def precision(job: TrainJob) -> AbstractContextManager[Any]:
    """Autocast to bfloat16 where the job asks for it."""
    return torch.autocast(torch.device(job.device).type, torch.bfloat16, enabled=job.amp == "bf16")


class NumberedFolder(datasets.ImageFolder):
    """torchvision's ImageFolder; the folders' names are the labels, so that one which is missing shifts none."""

    def find_classes(self, directory: str) -> tuple[list[str], dict[str, int]]:
        names = sorted(path.name for path in Path(directory).iterdir())
        return names, {name: int(name) for name in names}


def train_transform(job: TrainJob) -> Callable[[Any], torch.Tensor]:
    """Random crop, mirror, normalise, of a Pillow image."""
    return transforms.Compose(
        [
            transforms.RandomResizedCrop(job.size, job.scale, interpolation=InterpolationMode.BILINEAR),
            transforms.RandomHorizontalFlip(0.5),
            *_to_tensor(job),
        ]
    )


def eval_transform(job: TrainJob) -> Callable[[Any], torch.Tensor]:
    """Resize and crop as the model's eval view says, of a Pillow image."""
    side = math.floor(job.size / job.crop_pct)
    return transforms.Compose(
        [
            transforms.Resize(
                (side, side) if job.crop_mode == "squash" else side, InterpolationMode(job.interpolation)
            ),
            transforms.CenterCrop(job.size),
            *_to_tensor(job),
        ]
    )


def _to_tensor(job: TrainJob) -> list[Any]:
    return [
        transforms.PILToTensor(),
        transforms.ConvertImageDtype(torch.float32),
        transforms.Normalize(job.mean, job.std),
    ]


def hits(logits: torch.Tensor, labels: torch.Tensor, highest: int) -> torch.Tensor:
    """How many of the labels are among the `highest` largest logits, 0-dim int64."""
    found = logits.topk(min(highest, logits.shape[1])).indices
    return (found == labels[:, None]).any(1).sum()
