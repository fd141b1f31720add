"""Random jitters, crops and views, as training makes them."""

from dataclasses import dataclass

import numpy as np
import torch

from fasttrain.kernels.loading import Geometry
from fasttrain.kernels.pixels import Crops, Target


@dataclass(frozen=True)
class Factors:
    """A jitter."""

    factors: np.ndarray
    order: np.ndarray


def target_of(dtype: torch.dtype) -> Target:
    """ImageNet's normalisation."""
    return Target((1 / 58.395, 1 / 57.12, 1 / 57.375), (-2.1179, -2.0357, -1.8044), dtype)


def jitter_of(count: int, hue: float = 0.1, contrast: bool = True) -> Factors:
    """Strength 0.4, and `hue`, each sample in its own order."""
    generator = np.random.default_rng(0)
    factors = np.concatenate([generator.uniform(0.6, 1.4, (count, 3)), generator.uniform(-hue, hue, (count, 1))], 1)
    if not contrast:
        factors[:, 1] = 1
    return Factors(factors.astype(np.float32), np.argsort(generator.random((count, 4)), 1))


def crops_of(count: int, images: int, side: int, reach: int) -> Crops:
    """Windows of the images' own size, up to `reach` pixels off, flipped half of the time: CIFAR's augmentation."""
    generator = np.random.default_rng(0)
    return Crops(
        rows=generator.integers(0, images, count),
        corners=generator.integers(-reach, reach + 1, (count, 2)),
        height=side,
        width=side,
        hflip=generator.random(count) < 0.5,
        vflip=np.zeros(count, bool),
        padding="reflect",
    )


def views_of(sizes: np.ndarray, filter_: str, size: int) -> Geometry:
    """RandomResizedCrop: boxes of 8 to 100 % of the area, resized to `size`, flipped half of the time.

    Args:
        sizes: (B, 2) width and height.
    """
    generator = np.random.default_rng(0)
    count = len(sizes)
    share = np.sqrt(generator.uniform(0.08, 1, (count, 1)))
    extent = np.maximum(1, (sizes * share).astype(np.int64))
    start = (generator.random((count, 2)) * (sizes - extent + 1)).astype(np.int64)
    square, zeros = np.full((count, 2), size), np.zeros((count, 2), np.int64)
    flips = generator.random(count) < 0.5
    return Geometry(np.concatenate([start, extent], 1), square, zeros, flips, np.zeros(count, bool), filter_)
