"""Which convolutions of a model take Winograd's way in training on a CPU: those that gain by it.

That is found out before the first step.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fasttrain.base.console import say
from fasttrain.base.distributed import gather_on_all
from fasttrain.base.errors import ConfigError
from fasttrain.kernels import winograd
from fasttrain.models.winograd import (
    Passes,
    convolve,
    direct_gradients,
    gradient_by_images,
    gradient_by_weight,
    is_suitable,
    use_winograd,
)

Choice = Literal["auto", "off"] | tuple[str, ...]

LEAST_WORK = 50e6  # operations of a layer for a batch; below, what it takes is not the convolution
LEAST_GAIN = 1.1  # that a pass must have, how many times as fast: what is measured once is not known to a percent
LARGEST_DIFFERENCE = 1e-4  # from the direct way's result, relative, by the L2 norm
ROUNDS = 3
MEASURED_WORK, MEASURED_TILES = 1e9, 768  # operations, and tiles of 4 x 4, that a measurement needs


@dataclass(frozen=True)
class ConvolutionShape:
    """What a convolution of 3 x 3 works on; `images` at a time."""

    images: int
    inputs: int
    outputs: int
    height: int
    width: int

    @property
    def work(self) -> float:
        """Operations of the direct way."""
        return 18.0 * self.images * self.height * self.width * self.inputs * self.outputs

    def sample(self) -> "ConvolutionShape":
        """As many of the images as a measurement needs."""
        tiles = -(-self.height // 4) * -(-self.width // 4)
        enough = max(MEASURED_WORK * self.images / self.work, MEASURED_TILES / tiles)
        images = min(self.images, int(enough) + 1)
        return ConvolutionShape(images, self.inputs, self.outputs, self.height, self.width)


def choose_winograd(
    model: nn.Module, choice: Choice, images: int, size: int, memory_format: torch.memory_format
) -> dict[str, Passes]:
    """The convolutions that are to go by Winograd's way, by name. All ranks call it, and get what the first has found.

    Args:
        model: on the CPU.
        choice: ``auto`` measures both ways on the shapes that the model meets, some tens of milliseconds each, and
            takes the faster, pass by pass; shell patterns of names take all passes of these convolutions without a
            look.
        images: that pass through the model at a time.
        size: their side in pixels.
        memory_format: that they have.

    Raises:
        ConfigError: a pattern is of no convolution that Winograd's way is for.
    """
    suitable = [name for name, module in model.named_modules() if is_suitable(module)]
    if choice == "off" or (choice == "auto" and not suitable):
        return {}
    if choice != "auto":
        return {name: Passes() for name in _matched(suitable, choice)}
    measured: dict[ConvolutionShape, Passes] = {}
    chosen: dict[str, Passes] = {}
    if winograd.native_there():
        for name, shape in _shapes(model, images, size).items():
            if shape.work < LEAST_WORK:
                continue
            if shape not in measured:
                measured[shape] = measure(shape.sample(), memory_format)
            if any(measured[shape]):
                chosen[name] = measured[shape]
    agreed: dict[str, Passes] = gather_on_all(chosen)[0]
    return agreed


def apply_winograd(model: nn.Module, chosen: Mapping[str, Passes]) -> None:
    """Have convolutions take the chosen way, and say so."""
    suitable = sum(map(is_suitable, model.modules()))
    use_winograd(model, chosen)
    if chosen:
        say(f"winograd: {len(chosen)} of {suitable} convolutions of 3 x 3")


def measure(shape: ConvolutionShape, memory_format: torch.memory_format) -> Passes:
    """The passes that gain time on a shape, and whose results agree with the direct way's."""
    generator = torch.Generator().manual_seed(0)

    def random(*sides: int) -> Tensor:
        return torch.randn(sides, generator=generator).contiguous(memory_format=memory_format)

    images = random(shape.images, shape.inputs, shape.height, shape.width)
    gradient = random(shape.images, shape.outputs, shape.height, shape.width)
    weight = random(shape.outputs, shape.inputs, 3, 3)
    return Passes(
        forward=_gains(lambda: F.conv2d(images, weight, padding=1), lambda: convolve(images, weight)),
        input=_gains(
            lambda: direct_gradients(gradient, images, weight, (True, False, False))[0],
            lambda: gradient_by_images(gradient, weight),
        ),
        weight=_gains(
            lambda: direct_gradients(gradient, images, weight, (False, True, False))[1],
            lambda: gradient_by_weight(gradient, images, weight),
        ),
    )


def _gains(direct: Callable[[], Tensor | None], own: Callable[[], Tensor]) -> bool:
    """Whether the second way is faster than the first, by the best of some rounds, and gives the same."""
    best = [math.inf, math.inf]
    for _ in range(ROUNDS):
        expected, seconds = _timed(direct)
        found, own_seconds = _timed(own)
        best = [min(best[0], seconds), min(best[1], own_seconds)]
    assert expected is not None and found is not None
    same = (found - expected).norm() <= LARGEST_DIFFERENCE * expected.norm()
    return bool(same) and best[0] >= LEAST_GAIN * best[1]


def _timed(work: Callable[[], Tensor | None]) -> tuple[Tensor | None, float]:
    """What a call gives, and the seconds it took."""
    started = time.perf_counter()
    result = work()
    return result, time.perf_counter() - started


@torch.no_grad()
def _shapes(model: nn.Module, images: int, size: int) -> dict[str, ConvolutionShape]:
    """What the suitable convolutions of a model meet, by name; the largest where one is called several times.

    None of a model that does not take these images: the first step will say why.
    """
    shapes: dict[str, ConvolutionShape] = {}

    def noting(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            shape = ConvolutionShape(images, inputs[0].shape[1], *output.shape[1:])
            if name not in shapes or shape.work > shapes[name].work:
                shapes[name] = shape

        return note

    hooks = [m.register_forward_hook(noting(name)) for name, m in model.named_modules() if is_suitable(m)]
    training = model.training
    model.eval()
    try:
        model(torch.zeros(2, 3, size, size))  # two, since some compare views
    except (AssertionError, RuntimeError, ValueError):
        return {}
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    return shapes


def _matched(suitable: Sequence[str], patterns: Sequence[str]) -> list[str]:
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in suitable):
            known = f"those are {', '.join(suitable[:5])}" if suitable else "the model has none"
            raise ConfigError(f"winograd {pattern!r} is no convolution of 3 x 3 with stride 1 and padding 1; {known}")
    return [name for name in suitable if any(fnmatchcase(name, pattern) for pattern in patterns)]
