"""Optimizers by name, with the parameter groups that fine-tuning wants."""

from typing import Any

import torch
from torch import nn

from fasttrain.training.settings import OptimizerSettings

DESCRIPTIONS = {
    "adamw": "AdamW (decoupled weight decay, Loshchilov & Hutter 2019); fused on CUDA and CPU",
    "sgd": "SGD with Nesterov momentum; fused on CUDA and CPU",
}


def list_optimizers() -> dict[str, str]:
    """Name and one line about each optimizer."""
    return dict(DESCRIPTIONS)


def create_optimizer(model: nn.Module, settings: OptimizerSettings) -> torch.optim.Optimizer:
    """The optimizer of `settings` over the trainable parameters of `model`, in torch's fused implementation.

    Vectors (norm scales, biases) and what the model itself excludes are not decayed.
    """
    groups = parameter_groups(model, settings.weight_decay)
    fused = all(parameter.is_floating_point() for group in groups for parameter in group["params"])
    if settings.name == "adamw":
        return torch.optim.AdamW(groups, lr=settings.peak_lr, betas=settings.betas, fused=fused)
    return torch.optim.SGD(
        groups, lr=settings.peak_lr, momentum=settings.momentum, nesterov=settings.momentum > 0, fused=fused
    )


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Two groups: decayed matrices and convolutions; undecayed vectors and the names in ``model.no_weight_decay()``."""
    own_exceptions = getattr(model, "no_weight_decay", None)
    excluded = set(own_exceptions()) if callable(own_exceptions) else set()
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            (plain if parameter.ndim <= 1 or name in excluded else decayed).append(parameter)
    groups: list[dict[str, Any]] = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
