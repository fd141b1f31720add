"""NovoGrad."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from fasttrain.training.optimizers.multi_tensor import MultiTensorOptimizer, Tensors


class NovoGrad(MultiTensorOptimizer):
    """NovoGrad (Ginsburg et al., arXiv 1905.11286): each gradient divided by the average norm of its tensor's.

    Its second moment is one number a tensor, so that its state is half of Adam's.

    Args:
        grad_averaging: take ``1 - beta1`` of each normalised gradient, not the whole.
    """

    averages = ("exp_avg",)

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.95, 0.98),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        grad_averaging: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "grad_averaging": grad_averaging,
        }
        super().__init__(params, defaults)

    def _new_state(self, parameter: Tensor) -> dict[str, Any]:
        return {**super()._new_state(parameter), "exp_avg_sq": torch.zeros((), device=parameter.device)}

    def _update(self, group: dict[str, Any], tensors: Tensors) -> None:
        beta1, beta2 = group["betas"]
        norms = torch.stack(torch._foreach_norm(tensors.gradients, dtype=torch.float32)).square_()
        averages = torch.stack(tensors.state("exp_avg_sq"))
        # Before the first gradient that is not zero there is nothing to average with.
        averages = torch.where(averages == 0, norms, averages * beta2 + norms * (1 - beta2))
        torch._foreach_copy_(tensors.state("exp_avg_sq"), list(averages.unbind()))
        divisors = (averages.sqrt() + group["eps"]).to(tensors.parameters[0].dtype)
        updates = torch._foreach_div(tensors.gradients, list(divisors.unbind()))
        if group["weight_decay"]:
            torch._foreach_add_(updates, tensors.parameters, alpha=group["weight_decay"])
        if group["grad_averaging"]:
            torch._foreach_mul_(updates, 1 - beta1)
        means = tensors.state("exp_avg")
        torch._foreach_mul_(means, beta1)
        torch._foreach_add_(means, updates)
        torch._foreach_add_(tensors.parameters, means, alpha=-group["lr"])
