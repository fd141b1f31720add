"""The gradients of depthwise convolutions by our kernel beside torch's (oneDNN's), interleaved in one process.

Writes ``benchmarks/results/depthwise.json`` and prints a table.

python benchmarks/depthwise.py [--rounds 7] [--threads N] [--only 144,96:56] [--out FILE]

Both gradients are asked for together, as training does. Images, weights and results are float32, images channels-last.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from passes import Way, measure_layers

from fasttrain.models.depthwise import gradients
from fasttrain.models.native_tensors import torch_gradients

RESULTS = Path(__file__).parent / "results" / "depthwise.json"
WANTED = (True, True, False)  # by images, weight, bias


@dataclass(frozen=True)
class Layer:
    """A depthwise convolution of a network that is trained in batches of `images`."""

    network: str
    images: int
    channels: int
    side: int
    kernel: int
    stride: int = 1

    def __str__(self) -> str:
        return f"{self.channels}:{self.side}:{self.kernel}/{self.stride}"

    @property
    def padding(self) -> int:
        return self.kernel // 2

    @property
    def work(self) -> float:
        """Operations of both gradients, those of the padding included."""
        return 4.0 * self.images * (self.side / self.stride) ** 2 * self.kernel**2 * self.channels


_LITE0 = [(32, 112, 3), (96, 112, 3, 2), (144, 56, 3), (144, 56, 5, 2), (240, 28, 5), (240, 28, 3, 2), (480, 14, 3)]
_LITE0 += [(480, 14, 5), (672, 14, 5), (672, 14, 5, 2), (1152, 7, 5), (1152, 7, 3)]
LAYERS = [
    *(Layer("efficientnet_lite0", 32, *sides) for sides in _LITE0),
    *(Layer("convnext_tiny", 16, channels, side, 7) for channels, side in ((96, 56), (192, 28), (384, 14), (768, 7))),
]


def ways(layer: Layer) -> dict[str, tuple[Way, Way]]:
    """Ours and torch's."""
    torch.manual_seed(0)

    def random(side: int) -> torch.Tensor:
        images = torch.randn(layer.images, layer.channels, side, side)
        return images.contiguous(memory_format=torch.channels_last)

    images = random(layer.side)
    slopes = random((layer.side + 2 * layer.padding - layer.kernel) // layer.stride + 1)
    weight = torch.randn(layer.channels, 1, layer.kernel, layer.kernel)
    stride, padding = (layer.stride,) * 2, (layer.padding,) * 2

    def both(of: Way) -> Way:
        def work() -> torch.Tensor:
            by_images, by_weight, _ = of(slopes, images, weight, stride, padding, WANTED)
            return torch.cat([by_images.flatten()[:100_000], by_weight.flatten()])

        return work

    return {"gradients": (both(gradients), both(torch_gradients))}


if __name__ == "__main__":
    measure_layers(__doc__.splitlines()[0], RESULTS, LAYERS, ways)
