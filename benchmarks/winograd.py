"""Convolutions of 3 x 3 by Winograd's way beside torch's own (oneDNN's): each pass, interleaved in one process.

Writes ``benchmarks/results/winograd.json`` and prints a table.

python benchmarks/winograd.py [--rounds 7] [--threads N] [--only 64:64:56,512] [--out FILE]

Images, weights and results are float32 and channels-last; rates count the operations of the direct way for both.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from passes import Way, measure_layers

from fasttrain.models.winograd import convolve, direct_gradients, gradient_by_images, gradient_by_weight
from fasttrain.training.winograd import ConvolutionShape

RESULTS = Path(__file__).parent / "results" / "winograd.json"


@dataclass(frozen=True)
class Layer:
    """A convolution of a network that is trained in batches of `images`."""

    network: str
    images: int
    inputs: int
    outputs: int
    side: int

    def __str__(self) -> str:
        return f"{self.inputs}:{self.outputs}:{self.side}"

    @property
    def shape(self) -> ConvolutionShape:
        """What `fasttrain train` chooses the way by."""
        return ConvolutionShape(self.images, self.inputs, self.outputs, self.side, self.side)

    @property
    def work(self) -> float:
        """Operations of the direct way, those of the padding included."""
        return self.shape.work


LAYERS = [
    *(Layer("airbench_small", 500, *sides) for sides in ((24, 64, 31), (64, 64, 15), (64, 128, 15), (128, 128, 7))),
    *(Layer("airbench_small", 500, *sides) for sides in ((128, 256, 7), (256, 256, 3))),
    *(Layer("airbench94", 500, *sides) for sides in ((64, 256, 15), (256, 256, 7))),
    *(Layer("resnet18", 32, *sides) for sides in ((64, 64, 56), (128, 128, 28), (256, 256, 14), (512, 512, 7))),
]


def ways(layer: Layer, memory_format: torch.memory_format = torch.channels_last) -> dict[str, tuple[Way, Way]]:
    """Of each pass, ours and torch's."""
    torch.manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape).contiguous(memory_format=memory_format)

    images = random(layer.images, layer.inputs, layer.side, layer.side)
    gradient = random(layer.images, layer.outputs, layer.side, layer.side)
    weight = random(layer.outputs, layer.inputs, 3, 3)
    return {
        "forward": (lambda: convolve(images, weight), lambda: F.conv2d(images, weight, padding=1)),
        "by_input": (
            lambda: gradient_by_images(gradient, weight),
            lambda: direct_gradients(gradient, images, weight, (True, False, False))[0],
        ),
        "by_weight": (
            lambda: gradient_by_weight(gradient, images, weight),
            lambda: direct_gradients(gradient, images, weight, (False, True, False))[1],
        ),
    }


if __name__ == "__main__":
    measure_layers(__doc__.splitlines()[0], RESULTS, LAYERS, ways)
