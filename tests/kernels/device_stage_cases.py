"""Batches, jitters and geometries that the tests of the device stage share, and how close results have to be."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fasttrain.kernels.loading import Geometry
from fasttrain.kernels.pixels import Crops, FlatImages, Target

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
# Heights and widths: single pixels, odd ones, and more than one block of every kernel.
SHAPES = ((1, 1), (1, 7), (9, 11), (33, 47))


@dataclass(frozen=True)
class Factors:
    """A jitter."""

    factors: np.ndarray
    order: np.ndarray


def target(dtype: torch.dtype) -> Target:
    return Target((1 / 58.4, 1 / 57.1, 1 / 57.4), (-2.1179, -2.0357, -1.8044), dtype)


def assert_same(ours: Tensor, reference: Tensor) -> None:
    """Equal within rounding.

    Float32: intermediate values are 0 to 1 with errors of a few 2^-24, factors and the division by the standard
    deviation make them up to about ten times larger. In 16 bits, such a difference may cross the boundary between two
    neighbouring numbers, so one unit in the last place (at most eps times the value).
    """
    assert ours.dtype == reference.dtype and ours.shape == reference.shape
    relative = 0 if ours.dtype == torch.float32 else torch.finfo(ours.dtype).eps
    torch.testing.assert_close(ours.cpu().float(), reference.cpu().float(), rtol=relative, atol=2e-5)


def batch(count: int, height: int, width: int) -> Tensor:
    """(count, height, width, 3) uint8; of six, the last two are grey and black: colours without a hue."""
    generator = torch.Generator().manual_seed(height * width)
    images = torch.randint(0, 256, (count, height, width, 3), dtype=torch.uint8, generator=generator)
    if count == 6:
        images[4] = images[4, ..., :1]
        images[5] = 0
    return images


def jitter(count: int, seed: int = 0, contrast: bool = True) -> Factors:
    """Random factors and orders; each third sample has one operation that changes nothing."""
    generator = np.random.default_rng(seed)
    factors = np.concatenate([generator.uniform(0, 2, (count, 3)), generator.uniform(-0.5, 0.5, (count, 1))], 1)
    order = np.argsort(generator.random((count, 4)), 1)
    neutral = np.array([1, 1, 1, 0])
    for row in range(0, count, 3):
        factors[row, row % 4] = neutral[row % 4]
    if not contrast:
        factors[:, 1] = 1
    return Factors(factors.astype(np.float32), order)


def crops(count: int, images: int, height: int, width: int, padding: str = "black", seed: int = 0) -> Crops:
    """Windows of another shape than the image, in part beyond it, flipped in all four ways; rows repeat."""
    generator = np.random.default_rng(seed)
    reach = np.array([width - 1, height - 1])  # as far as a reflection can go
    corners = generator.integers(-reach, np.minimum(reach, 1) + 1, (count, 2))
    return Crops(
        rows=generator.integers(0, images, count),
        corners=corners,
        height=height,
        width=max(1, width - 1),
        hflip=np.arange(count) % 2 == 1,
        vflip=np.arange(count) % 4 >= 2,
        padding=padding,  # type: ignore[arg-type]
    )


def flat_images(sizes: list[tuple[int, int]], planar: bool = False, gap: int = 5) -> FlatImages:
    """Waves of colour with some noise, one after the other with gaps between them."""
    generator = np.random.default_rng(7)
    offsets, pieces, position = [], [], 0
    for width, height in sizes:
        y, x = np.mgrid[0:height, 0:width]
        waves = np.stack([np.sin(x / (2 + channel) + y / (5 - channel)) for channel in range(3)], -1)
        pixels = np.clip(127 + 60 * waves + generator.normal(0, 15, waves.shape), 0, 255).astype(np.uint8)
        pixels = pixels.transpose(2, 0, 1) if planar else pixels
        pieces += [np.zeros(gap, np.uint8), pixels.ravel()]
        offsets.append(position + gap)
        position += gap + pixels.size
    return FlatImages(torch.from_numpy(np.concatenate(pieces)), np.array(offsets), np.array(sizes), planar)


def geometry(views: list[tuple[tuple[int, ...], tuple[int, int], tuple[int, int]]], filter_: str) -> Geometry:
    """Of (box, resized, window) each; flipped in all four ways."""
    boxes, resized, windows = (np.array(column) for column in zip(*views, strict=True))
    number = np.arange(len(views))
    return Geometry(boxes, resized, windows, number % 2 == 1, number % 4 >= 2, filter_)
