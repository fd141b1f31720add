"""Muon for convolutions, as it trains image models from scratch."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from fasttrain.training.optimizers.multi_tensor import MultiTensorOptimizer, Tensors

# Jordan's quintic, which pulls singular values into [0.7, 1.2] in few steps instead of converging to 1.
_A, _B, _C = 3.4445, -4.7750, 2.0315


class FilterMuon(MultiTensorOptimizer):
    """Muon (Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024) over filters.

    A tensor of two or more dimensions counts as a matrix of as many rows as its first one has. The Nesterov momentum of
    its gradient is made orthogonal, as far as `ns_steps` Newton-Schulz steps do that, and taken times `lr`.

    Args:
        keep_norm: bring each tensor to a norm of sqrt(rows) before its step, so that `lr` is a share of it. For weights
            that a normalisation layer follows, whose norm says nothing. Weights are not decayed then.
    """

    averages = ("momentum_buffer",)

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 0.24,
        momentum: float = 0.6,
        weight_decay: float = 0.0,
        ns_steps: int = 3,
        keep_norm: bool = True,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        super().__init__(params, defaults | {"ns_steps": ns_steps, "keep_norm": keep_norm})

    def _update(self, group: dict[str, Any], tensors: Tensors) -> None:
        moments = tensors.state("momentum_buffer")
        torch._foreach_mul_(moments, group["momentum"])
        torch._foreach_add_(moments, tensors.gradients)
        directions = torch._foreach_add(tensors.gradients, moments, alpha=group["momentum"])
        if group["keep_norm"]:
            for parameter in tensors.parameters:
                parameter.mul_(len(parameter) ** 0.5 / parameter.norm())
        elif group["weight_decay"]:
            torch._foreach_mul_(tensors.parameters, 1 - group["lr"] * group["weight_decay"])
        for parameter, direction in zip(tensors.parameters, directions, strict=True):
            step = orthogonal(direction.reshape(len(direction), -1), group["ns_steps"])
            parameter.add_(step.view(parameter.shape), alpha=-group["lr"])


def orthogonal(matrix: Tensor, steps: int, eps: float = 1e-7) -> Tensor:
    """About U Vᵀ of a matrix U S Vᵀ (m, n), by Newton-Schulz steps; in bfloat16 on a GPU, else in float32."""
    x = matrix.to(torch.bfloat16 if matrix.device.type == "cuda" else torch.float32)
    x = x / (x.norm() + eps)
    wide = x if x.shape[0] <= x.shape[1] else x.T
    for _ in range(steps):
        square = wide @ wide.T
        factor = torch.addmm(square, square, square, beta=_B, alpha=_C)
        wide = torch.addmm(wide, factor, wide, beta=_A)
    return (wide if x.shape[0] <= x.shape[1] else wide.T).to(matrix.dtype)
