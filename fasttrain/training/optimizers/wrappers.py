"""Optimizers made of others: Lookahead around one, and two side by side."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class _Wrapper(Optimizer):
    """Shows the parameter groups of others as its own; their state is theirs."""

    def __init__(self, inner: Sequence[Optimizer]) -> None:
        super().__init__([group for optimizer in inner for group in optimizer.param_groups], {})
        self.inner = list(inner)
        self._show_groups()

    def _show_groups(self) -> None:
        self.param_groups = [group for optimizer in self.inner for group in optimizer.param_groups]

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Let each of them take its step; gives what `closure` gives."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for optimizer in self.inner:
            optimizer.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        return {"inner": [optimizer.state_dict() for optimizer in self.inner]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for optimizer, state in zip(self.inner, state_dict["inner"], strict=True):
            optimizer.load_state_dict(state)
        self._show_groups()  # loading has replaced them


class SideBySide(_Wrapper):
    """Several optimizers, each with its own parameters."""


class Lookahead(_Wrapper):
    """Lookahead (Zhang et al., NeurIPS 2019, arXiv 1907.08610): slow weights follow the fast ones every k-th step.

    Args:
        inner: takes the fast steps.
        k: steps from one meeting to the next.
        alpha: share of the way to the fast weights that the slow ones go; then the fast ones begin anew from there.
    """

    def __init__(self, inner: Optimizer, k: int = 6, alpha: float = 0.5) -> None:
        if k < 1 or not 0 < alpha <= 1:
            raise ValueError(f"k must be 1 or more and alpha in (0, 1], but they are {k} and {alpha}")
        super().__init__([inner])
        self.k, self.alpha = k, alpha
        self.steps = 0
        self._slow = [parameter.detach().clone() for parameter in self._fast]

    @property
    def _fast(self) -> list[Tensor]:
        return [parameter for group in self.param_groups for parameter in group["params"]]

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = super().step(closure)
        self.steps += 1
        if self.steps % self.k == 0:
            fast = [parameter.detach() for parameter in self._fast]
            torch._foreach_lerp_(self._slow, fast, self.alpha)
            torch._foreach_copy_(fast, self._slow)
        return loss

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "steps": self.steps, "slow": self._slow}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.steps = state_dict["steps"]
        for mine, loaded in zip(self._slow, state_dict["slow"], strict=True):
            mine.copy_(loaded)
