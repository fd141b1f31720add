"""What tests of single steps share: a Stepper around a small model, and batches."""

from typing import Any

import torch

from fasttrain.loading.batch import Batch
from fasttrain.training.epochs import EpochTable
from fasttrain.training.schedule import Schedule
from fasttrain.training.schedule_settings import ScheduleSettings
from fasttrain.training.stepper import Stepper

CPU = torch.device("cpu")


def make_stepper(module: torch.nn.Module, optimizer: torch.optim.Optimizer | None = None, **options: Any) -> Stepper:
    """A Stepper in training mode with the optimizer's rate all the time; plain SGD at 0.1 if None is given.

    Args:
        options: fields of the Stepper that are to be others.
    """
    optimizer = optimizer or torch.optim.SGD(module.parameters(), lr=0.1)
    constant = ScheduleSettings(kind="constant", warmup_epochs=0)
    values = {
        "module": module.train(),
        "model": module,
        "optimizer": optimizer,
        "schedule": Schedule(constant, optimizer.param_groups[0]["lr"], EpochTable.even(10, 1)),
        "ema": None,
        "device": CPU,
        "amp": "off",
        "label_smoothing": 0.0,
        "clip_norm": 0.0,
        "seed": 0,
    }
    return Stepper(**{**values, **options})


def random_batch(size: int = 6, valid: list[bool] | None = None, pixels: int = 32, classes: int = 3) -> Batch:
    """Noise with labels, from torch's generator; of masked samples only `ids` hold the label that was drawn."""
    images, labels = torch.randn(size, 3, pixels, pixels), torch.randint(0, classes, (size,))
    mask = torch.ones(size, dtype=torch.bool) if valid is None else torch.tensor(valid)
    return Batch(images, labels.where(mask, -1), labels, mask)
