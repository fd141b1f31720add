"""LAMB, for large batches."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from fasttrain.training.optimizers.multi_tensor import MultiTensorOptimizer, Tensors, update_moments


class Lamb(MultiTensorOptimizer):
    """LAMB (You et al., "Large Batch Optimization for Deep Learning", ICLR 2020, arXiv 1904.00962) as NVIDIA's.

    Adam's update, weight decay included, is scaled for each tensor by ||weights|| / ||update||. The gradients of all
    parameters together are first brought to a norm of `max_grad_norm` at the most, so nothing else should clip them.

    Args:
        max_grad_norm: None for no clipping.
        always_adapt: scale the updates of groups without weight decay, too.
    """

    averages = ("exp_avg", "exp_avg_sq")

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.01,
        max_grad_norm: float | None = 1.0,
        always_adapt: bool = False,
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "always_adapt": always_adapt}
        super().__init__(params, defaults)
        self.max_grad_norm = max_grad_norm
        self._divisors: dict[torch.device, Tensor] = {}  # of the gradients in this step

    def _begin(self) -> None:
        if self.max_grad_norm is None:
            return
        gradients = [entry.grad for group in self.param_groups for entry in group["params"] if entry.grad is not None]
        if gradients:
            norm = torch.nn.utils.get_total_norm(gradients)
            divisor = (norm / self.max_grad_norm).clamp_(min=1.0)
            self._divisors = {device: divisor.to(device) for device in {gradient.device for gradient in gradients}}

    def _update(self, group: dict[str, Any], tensors: Tensors) -> None:
        beta1, beta2 = group["betas"]
        gradients = tensors.gradients
        if self.max_grad_norm is not None:
            gradients = list(torch._foreach_div(gradients, self._divisors[gradients[0].device]))
        means, squares = tensors.state("exp_avg"), tensors.state("exp_avg_sq")
        update_moments(means, squares, gradients, group["betas"])
        divisors = torch._foreach_sqrt(squares)
        torch._foreach_div_(divisors, (1 - beta2**tensors.step) ** 0.5)
        torch._foreach_add_(divisors, group["eps"])
        updates = torch._foreach_div(means, divisors)
        torch._foreach_div_(updates, 1 - beta1**tensors.step)
        if group["weight_decay"]:
            torch._foreach_add_(updates, tensors.parameters, alpha=group["weight_decay"])
        if group["weight_decay"] or group["always_adapt"]:
            torch._foreach_mul_(updates, trust_ratios(tensors.parameters, updates))
        torch._foreach_add_(tensors.parameters, updates, alpha=-group["lr"])


def trust_ratios(parameters: list[Tensor], updates: list[Tensor] | tuple[Tensor, ...]) -> list[Tensor]:
    """||parameter|| / ||update|| of each pair, on their device; 1 where either is 0."""
    weights = torch.stack(torch._foreach_norm(parameters))
    lengths = torch.stack(torch._foreach_norm(updates))
    ratios = torch.where((weights > 0) & (lengths > 0), weights / lengths, torch.ones_like(weights))
    return list(ratios.unbind())
