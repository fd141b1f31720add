"""What our own optimizers share: they update lists of tensors at a time, by torch's foreach operations."""

from abc import abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Tensors:
    """Parameters of one group that are of one device and type and have done equally many steps.

    Attributes:
        step: number of this step, from 1 on.
        parameters, gradients: of each parameter.
    """

    step: int
    parameters: list[Tensor]
    gradients: list[Tensor]
    states: list[dict[str, Any]]

    def state(self, name: str) -> list[Tensor]:
        """The state `name` of each parameter."""
        return [state[name] for state in self.states]


class MultiTensorOptimizer(torch.optim.Optimizer):
    """Base of our own optimizers. Gradients are not changed by a step.

    State has the type of its parameter; `step` is a float32 number on the CPU, as torch's optimizers keep it, so that
    reading it waits for no device.

    Attributes:
        averages: names of states that begin as zeros of the parameter's shape.
    """

    averages: tuple[str, ...] = ()

    def __init__(self, params: Iterable[Any], defaults: dict[str, Any]) -> None:
        check_defaults(defaults)
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update all parameters that have a gradient; gives what `closure` gives."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._begin()
        for group in self.param_groups:
            for tensors in self._lists(group):
                self._update(group, tensors)
        return loss

    def _begin(self) -> None:
        """Called once a step, before any update."""

    @abstractmethod
    def _update(self, group: dict[str, Any], tensors: Tensors) -> None:
        """Update some parameters of a group."""

    def _new_state(self, parameter: Tensor) -> dict[str, Any]:
        """The state of a parameter before its first step, without `step`."""
        return {name: torch.zeros_like(parameter, memory_format=torch.preserve_format) for name in self.averages}

    def _lists(self, group: dict[str, Any]) -> list[Tensors]:
        lists: dict[tuple[torch.device, torch.dtype, int], list[Tensor]] = defaultdict(list)
        for parameter in group["params"]:
            if parameter.grad is None:
                continue
            if parameter.grad.is_sparse:
                raise RuntimeError(f"{type(self).__name__} knows no sparse gradients")
            state = self.state[parameter]
            if not state:
                state["step"] = torch.zeros((), dtype=torch.float32)
                state.update(self._new_state(parameter))
            state["step"] += 1
            lists[parameter.device, parameter.dtype, int(state["step"])].append(parameter)
        return [self._tensors(step, found) for (_, _, step), found in lists.items()]

    def _tensors(self, step: int, parameters: list[Tensor]) -> Tensors:
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        return Tensors(step, parameters, gradients, [self.state[parameter] for parameter in parameters])


def update_moments(means: list[Tensor], squares: list[Tensor], gradients: list[Tensor], betas: Sequence[float]) -> None:
    """Take `gradients` into the running averages of themselves and of their squares."""
    beta1, beta2 = betas
    torch._foreach_lerp_(means, gradients, 1 - beta1)
    torch._foreach_mul_(squares, beta2)
    torch._foreach_addcmul_(squares, gradients, gradients, value=1 - beta2)


def check_defaults(defaults: dict[str, Any]) -> None:
    """Refuse what no optimizer can work with.

    Raises:
        ValueError: a rate is negative, or a beta not in [0, 1).
    """
    for name in ("lr", "eps", "weight_decay"):
        if defaults.get(name, 0) < 0:
            raise ValueError(f"{name} must not be negative, but is {defaults[name]}")
    for beta in defaults.get("betas", ()):
        if not 0 <= beta < 1:
            raise ValueError(f"betas must lie in [0, 1), but are {defaults['betas']}")
