"""Optimizers whose adaptive step is rectified while its variance is high: RAdam and AdaBelief."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from fasttrain.training.optimizers.multi_tensor import MultiTensorOptimizer, Tensors, update_moments

_MIN_SAMPLES = 5  # of the average, below which its variance is not to be trusted


def rectification(step: int, beta2: float) -> float | None:
    """The factor of an adaptive step, sqrt(1 - beta2^t) included; None where the step is to be that of SGD.

    Equations 2 to 5 of Liu et al., "On the Variance of the Adaptive Learning Rate and Beyond", ICLR 2020.
    """
    decayed = beta2**step
    most = 2 / (1 - beta2) - 1
    samples = most - 2 * step * decayed / (1 - decayed)
    if samples < _MIN_SAMPLES:
        return None
    variance = (samples - 4) / (most - 4) * (samples - 2) / samples * most / (most - 2)
    return math.sqrt((1 - decayed) * variance)


def centralised(gradients: list[Tensor]) -> list[Tensor]:
    """Gradients of matrices and convolutions less the mean over each output's weights (Yong et al., ECCV 2020)."""
    return [_centralised(gradient) if gradient.ndim > 1 else gradient for gradient in gradients]


def _centralised(gradient: Tensor) -> Tensor:
    return gradient - gradient.mean(tuple(range(1, gradient.ndim)), keepdim=True)


def _step(group: dict[str, Any], tensors: Tensors, means: list[Tensor], squares: list[Tensor]) -> None:
    """Move by the rectified ratio of mean and square, or by the mean alone."""
    beta1, beta2 = group["betas"]
    size = group["lr"] / (1 - beta1**tensors.step)
    factor = rectification(tensors.step, beta2)
    if factor is None:
        torch._foreach_add_(tensors.parameters, means, alpha=-size)
        return
    divisors = torch._foreach_sqrt(squares)
    torch._foreach_add_(divisors, group["eps"])
    torch._foreach_addcdiv_(tensors.parameters, means, divisors, value=-size * factor)


class RAdam(MultiTensorOptimizer):
    """RAdam (Liu et al., ICLR 2020, arXiv 1908.03265) with decoupled weight decay.

    Args:
        centralise: centralise the gradients, as Ranger does.
    """

    averages = ("exp_avg", "exp_avg_sq")

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        centralise: bool = False,
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "centralise": centralise}
        super().__init__(params, defaults)

    def _update(self, group: dict[str, Any], tensors: Tensors) -> None:
        gradients = centralised(tensors.gradients) if group["centralise"] else tensors.gradients
        means, squares = tensors.state("exp_avg"), tensors.state("exp_avg_sq")
        update_moments(means, squares, gradients, group["betas"])
        torch._foreach_mul_(tensors.parameters, 1 - group["lr"] * group["weight_decay"])
        _step(group, tensors, means, squares)


class AdaBelief(MultiTensorOptimizer):
    """AdaBelief (Zhuang et al., NeurIPS 2020, arXiv 2010.07468), rectified, with decoupled weight decay.

    Adam with the variance of the gradient about its average in place of its square.
    """

    averages = ("exp_avg", "exp_avg_var")

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-16,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    def _update(self, group: dict[str, Any], tensors: Tensors) -> None:
        beta1, beta2 = group["betas"]
        torch._foreach_mul_(tensors.parameters, 1 - group["lr"] * group["weight_decay"])
        means, variances = tensors.state("exp_avg"), tensors.state("exp_avg_var")
        torch._foreach_lerp_(means, tensors.gradients, 1 - beta1)
        surprises = torch._foreach_sub(tensors.gradients, means)
        torch._foreach_mul_(variances, beta2)
        torch._foreach_addcmul_(variances, surprises, surprises, value=1 - beta2)
        torch._foreach_add_(variances, group["eps"])
        _step(group, tensors, means, variances)
