"""Which convolutions of a model take Winograd's way in training on a CPU: those that should gain by it.

That follows from their shapes alone, so that a run repeated has the same bits.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

import torch
from torch import Tensor, nn

from fasttrain.base.console import say
from fasttrain.base.errors import ConfigError
from fasttrain.kernels import winograd
from fasttrain.models.winograd import Passes, is_suitable, use_winograd

Choice = Literal["auto", "off"] | tuple[str, ...]

LEAST_WORK = 50e6  # operations of a layer for a batch; below, what it takes is not the convolution
LARGEST_COST = 0.9  # of the direct way's time: estimates are not exact to a tenth


@dataclass(frozen=True)
class Cost:
    """Time of a pass by Winograd's way, as a part of the direct way's.

    Fitted to oneDNN's times on 2 to 128 images of 7 to 56 pixels with 3 to 512 channels, on 1 and 2 cores with AVX-512,
    in both memory formats; rounded up, so that little is chosen that loses (``benchmarks/studies/winograd_cost.py``).
    """

    products: float
    image_transforms: float  # of each tile by channel of one side, where products are by pairs of channels
    weight_transforms: float  # once for all tiles

    def of(self, shape: "ConvolutionShape") -> float:
        """What a pass over a shape costs."""
        channels = 1 / shape.inputs + 1 / shape.outputs
        return shape.padding * (self.products + self.image_transforms * channels) + self.weight_transforms / shape.tiles


IMAGE_COST = Cost(products=0.33, image_transforms=5.0, weight_transforms=14.0)  # forward, and gradient by the input
WEIGHT_COST = Cost(products=0.45, image_transforms=5.3, weight_transforms=60.0)


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

    @property
    def tiles(self) -> int:
        """Tiles of 4 x 4 outputs that cover the images."""
        return self.images * -(-self.height // 4) * -(-self.width // 4)

    @property
    def padding(self) -> float:
        """Outputs of the tiles, for one of the images."""
        return 16 * self.tiles / (self.images * self.height * self.width)

    def gaining(self) -> Passes:
        """The passes that Winograd's way should make faster."""
        if self.work < LEAST_WORK:
            return Passes(False, False, False)
        images, weights = IMAGE_COST.of(self) < LARGEST_COST, WEIGHT_COST.of(self) < LARGEST_COST
        return Passes(forward=images, input=images, weight=weights)


def choose_winograd(model: nn.Module, choice: Choice, images: int, size: int) -> dict[str, Passes]:
    """The convolutions that are to go by Winograd's way, by name.

    Args:
        model: on the CPU.
        choice: ``auto`` takes the passes that should gain on the shapes that the model meets; shell patterns of names
            take all passes of these convolutions.
        images: that pass through the model at a time.
        size: their side in pixels.

    Raises:
        ConfigError: a pattern is of no convolution that Winograd's way is for.
    """
    suitable = [name for name, module in model.named_modules() if is_suitable(module)]
    if choice == "off" or (choice == "auto" and not (suitable and winograd.native_gains())):
        return {}
    if choice != "auto":
        return {name: Passes() for name in _matched(suitable, choice)}
    passes = {name: shape.gaining() for name, shape in _shapes(model, images, size).items()}
    return {name: gaining for name, gaining in passes.items() if any(gaining)}


def apply_winograd(model: nn.Module, chosen: Mapping[str, Passes]) -> None:
    """Have convolutions take the chosen way, and say so."""
    suitable = sum(map(is_suitable, model.modules()))
    use_winograd(model, chosen)
    if chosen:
        say(f"winograd: {len(chosen)} of {suitable} convolutions of 3 x 3")


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
