"""One step of AdamW or LAMB by plain torch, tensor by tensor: the reference of the kernels."""

from collections.abc import Sequence

import torch
from torch import Tensor

from fasttrain.kernels.weight_update import Clipping, Rates, Scaling, Weights

Gradients = Sequence[Tensor | None]


@torch.no_grad()
def adamw(
    weights: Weights,
    gradients: Gradients,
    rates: Sequence[Rates],
    clipping: Clipping | None = None,
    scaling: Scaling | None = None,
    follow: float = 0.0,
) -> None:
    """AdamW (Loshchilov & Hutter, "Decoupled Weight Decay Regularization", ICLR 2019, arXiv 1711.05101).

    Args:
        gradients: of each weight, float32 or bfloat16; None: it stays as it is, and counts no step.
        rates: of each group.
        follow: share of the way to the weights that their averages go.
    """
    factor = gradient_factor(gradients, clipping, scaling)
    for number, gradient in _moving(weights, gradients, scaling):
        value, rate, step = weights.values[number], rates[weights.groups[number]], int(weights.steps[number])
        beta1, beta2 = rate.betas
        mean, square = _moments(weights, number, gradient.float() * factor, rate)
        value.mul_(1 - rate.lr * rate.weight_decay)
        divisor = square.sqrt().div_((1 - beta2**step) ** 0.5).add_(rate.eps)
        value.addcdiv_(mean, divisor, value=-rate.lr / (1 - beta1**step))
    _average(weights, follow)


@torch.no_grad()
def lamb(
    weights: Weights,
    gradients: Gradients,
    rates: Sequence[Rates],
    clipping: Clipping | None = None,
    scaling: Scaling | None = None,
    follow: float = 0.0,
) -> None:
    """LAMB (You et al., "Large Batch Optimization for Deep Learning", ICLR 2020, arXiv 1904.00962); as `adamw`."""
    factor = gradient_factor(gradients, clipping, scaling)
    for number, gradient in _moving(weights, gradients, scaling):
        value, rate, step = weights.values[number], rates[weights.groups[number]], int(weights.steps[number])
        beta1, beta2 = rate.betas
        mean, square = _moments(weights, number, gradient.float() * factor, rate)
        divisor = square.sqrt().div_((1 - beta2**step) ** 0.5).add_(rate.eps)
        update = (mean / divisor).div_(1 - beta1**step).add_(value, alpha=rate.weight_decay)
        ratio = value.norm() / update.norm()
        if rate.adapts and value.any() and update.any():
            update *= ratio
        value.sub_(update, alpha=rate.lr)
    _average(weights, follow)


def gradient_factor(gradients: Gradients, clipping: Clipping | None, scaling: Scaling | None) -> Tensor:
    """0-dim: what each gradient is multiplied by."""
    factor = torch.ones(()) if scaling is None else 1 / scaling.scale
    present = [gradient.float() * factor for gradient in gradients if gradient is not None]
    if clipping is None or not present:
        return factor
    norm = torch.nn.utils.get_total_norm(present)
    return factor * (clipping.norm / (norm + clipping.floor)).clamp(max=1.0)


def _moving(weights: Weights, gradients: Gradients, scaling: Scaling | None) -> list[tuple[int, Tensor]]:
    """Numbers and gradients of the weights that this step moves; it is counted."""
    if scaling is not None and scaling.found_inf != 0:
        return []
    moving = [(number, gradient) for number, gradient in enumerate(gradients) if gradient is not None]
    for number, _ in moving:
        weights.steps[number] += 1
    return moving


def _moments(weights: Weights, number: int, gradient: Tensor, rate: Rates) -> tuple[Tensor, Tensor]:
    mean, square = weights.means[number], weights.squares[number]
    beta1, beta2 = rate.betas
    return mean.lerp_(gradient, 1 - beta1), square.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)


def _average(weights: Weights, follow: float) -> None:
    for average, value in zip(weights.averages or (), weights.values, strict=False):
        average.lerp_(value, follow)
