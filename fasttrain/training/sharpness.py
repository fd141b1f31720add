"""Sharpness-aware minimisation (Foret et al., ICLR 2021, arXiv 2010.01412)."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def ascended(module: nn.Module, rho: float) -> Iterator[None]:
    """Inside, the weights are where the loss is highest nearby, to first order: ``w + rho * g / ||g||``.

    What is computed there leaves the running statistics of normalisation layers alone; they are those of the weights
    themselves.

    Args:
        module: its parameters' gradients say where to climb; they may be cleared inside.
    """
    weights: list[Tensor] = [parameter for parameter in module.parameters() if parameter.grad is not None]
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    with torch.no_grad():
        norm = torch.nn.utils.get_total_norm(gradients)
        before = [weight.detach().clone() for weight in weights]
        climbs = torch._foreach_mul(gradients, rho / (norm + 1e-12))
        torch._foreach_add_(weights, climbs)
    norms = [layer for layer in module.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    momenta = [layer.momentum for layer in norms]
    for layer in norms:
        layer.momentum = 0.0
    try:
        yield
    finally:
        for layer, momentum in zip(norms, momenta, strict=True):
            layer.momentum = momentum
        with torch.no_grad():
            torch._foreach_copy_(weights, before)
