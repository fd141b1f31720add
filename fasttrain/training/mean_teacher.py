"""The teacher: a moving average of the student, whose answers to equal images are equal bits."""

import copy
import re
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from fasttrain.base.errors import TrainingError

BatchNorm = Literal["average", "batch"]
# What leaves parts of a network out at random goes by these names, in whichever library: timm's, mmcv's and mmseg's
# DropPath, torchvision's StochasticDepth, DropBlock, DropConnect, …
_RANDOM = re.compile(r"drop_?(out|path|block|connect|key|head|layer)|stochastic_?depth", re.IGNORECASE)


def is_random(module: nn.Module) -> bool:
    """Whether a module is one of those that leave something out at random, by its class or the class's name."""
    return isinstance(module, _DropoutNd) or bool(_RANDOM.search(type(module).__name__))


class MeanTeacher:
    """The exponential moving average of a model (Tarvainen and Valpola, NeurIPS 2017).

    It is deterministic: everything is in evaluation mode (which functions that ask ``self.training`` follow), and
    layers that leave something out at random, and are nothing else, are taken out.

    Args:
        student: the model itself, not what DDP or the compiler made of it.
        alpha: share of the average that a step keeps, at the most.
        batch_norm: what batch normalisation goes by. ``average``: the moving average of the student's statistics, like
            the weights; ``batch``: the statistics of the images that the teacher looks at, as DACS has it (an image's
            labels depend on the others of its batch then).

    Attributes:
        module: the averaged model. Nothing learns in it.
    """

    def __init__(self, student: nn.Module, alpha: float = 0.999, batch_norm: BatchNorm = "average") -> None:
        if not 0 <= alpha < 1:
            raise ValueError(f"alpha lies in [0, 1), not {alpha}")
        self.alpha, self.batch_norm = alpha, batch_norm
        self.module = _without_randomness(copy.deepcopy(student)).requires_grad_(False)
        self._settle()

    def decay(self, step: int) -> float:
        """Share of the average that stays at a step, counted from 0: ``min(1 - 1 / (step + 1), alpha)``, so that the
        first step copies the student."""
        return min(1 - 1 / (step + 1), self.alpha)

    @torch.no_grad()
    def update(self, student: nn.Module, step: int) -> None:
        """Move towards the student: weights and floating-point buffers by the same share, tensors are told by their
        names; counters are copied.

        Raises:
            TrainingError: the student has other tensors than the one that the teacher was made of.
        """
        mine, theirs = _tensors(self.module), _tensors(student)
        if mine.keys() != theirs.keys():
            name = sorted(mine.keys() ^ theirs.keys())[0]
            raise TrainingError(f"the teacher cannot follow the student: {name} is in one of them alone")
        share = 1 - self.decay(step)
        floating = [name for name, tensor in mine.items() if tensor.is_floating_point()]
        torch._foreach_lerp_([mine[name] for name in floating], [theirs[name] for name in floating], share)
        for name in mine.keys() - set(floating):
            mine[name].copy_(theirs[name])

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """What the averaged model says of images (B, 3, H, W); nothing in it changes by that."""
        self._settle()
        if self.batch_norm == "average":
            return self.module(images)
        counters = [norm.num_batches_tracked for norm in self._norms() if norm.num_batches_tracked is not None]
        before = [counter.clone() for counter in counters]
        answer: Tensor = self.module(images)
        for counter, value in zip(counters, before, strict=True):
            counter.copy_(value)
        return answer

    def require_deterministic(self, images: Tensor) -> None:
        """Compare two answers to the same images, from different states of the generators: equal bits on a CPU. On a
        GPU sums may come in another order each time, so that a hundredth of the largest value is allowed.

        Raises:
            TrainingError: they differ, so that something random is left in the model.
        """
        answers = []
        for seed in (1, 2):
            with torch.random.fork_rng([images.device] if images.device.type == "cuda" else []):
                torch.manual_seed(seed)
                answers.append(self(images).float())
        allowed = 0.0 if images.device.type == "cpu" else 0.01 * answers[0].abs().max()
        if (answers[0] - answers[1]).abs().max() > allowed:
            found = sorted({type(module).__name__ for module in self.module.modules() if is_random(module)})
            named = f" (it may be {', '.join(found)})" if found else ""
            raise TrainingError(
                "the teacher's answers to the same images differ, so a part of the model is random in evaluation mode, "
                f"too{named}; turn it off in the model's options"
            )

    def state_dict(self) -> dict[str, Tensor]:
        """All tensors of the average."""
        return dict(self.module.state_dict())

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from what `state_dict` gave."""
        self.module.load_state_dict(state)

    def _settle(self) -> None:
        """Every module in evaluation mode, batch normalisation as the policy has it, whoever called ``train``."""
        self.module.eval()
        if self.batch_norm == "batch":
            for norm in self._norms():
                norm.training = True  # alone, not what may lie within it
                norm.momentum = 0.0  # so that the statistics it keeps stay the student's

    def _norms(self) -> list[_BatchNorm]:
        return [module for module in self.module.modules() if isinstance(module, _BatchNorm)]


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name; one that several layers share, once."""
    found: dict[str, Tensor] = {name: parameter.data for name, parameter in module.named_parameters()}
    return {**found, **dict(module.named_buffers())}


def _without_randomness(module: nn.Module) -> nn.Module:
    for name, child in module.named_children():
        plain = not list(child.children()) and not child.state_dict()
        if plain and is_random(child):
            setattr(module, name, nn.Identity())
        else:
            _without_randomness(child)
    return module
