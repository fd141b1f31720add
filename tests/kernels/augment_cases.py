"""Pictures and programs that the tests of augmentation share."""

import numpy as np
import torch

from fasttrain.kernels.augment import augment
from fasttrain.kernels.augment_program import Op, Program, Style, program_of
from fasttrain.kernels.loading import loading_available

IMPLEMENTATIONS = ["plain", *(["native"] if loading_available() else [])]
SHAPES = [(1, 1), (1, 9), (8, 1), (2, 3), (37, 53), (64, 64)]


def picture(height: int = 53, width: int = 61, seed: int = 0) -> np.ndarray:
    """(height, width, 3) uint8: waves with noise; a grey and a black stripe, for colours without a hue."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    waves = np.stack([np.sin(x / (7 + channel) + y / 13) for channel in range(3)], -1)
    image = np.clip(127 + 70 * waves + generator.normal(0, 15, (height, width, 3)), 0, 255).astype(np.uint8)
    if height > 8:
        image[4:8] = image[4:8, :, :1]
        image[:2] = 0
    return image


def done(
    image: np.ndarray, *steps: tuple[Op, list[float]], using: str = "plain", seed: int = 5, style: Style | None = None
) -> np.ndarray:
    """`image` after some operations."""
    program = program_of([steps], [seed], style)
    return augment(torch.from_numpy(image[None].copy()), program, using=using)[0].numpy()  # type: ignore[arg-type]


def levels(ours: np.ndarray, other: np.ndarray) -> int:
    """The largest difference."""
    return int(np.abs(ours.astype(int) - other).max())


def random_program(count: int, size: int, seed: int = 0) -> Program:
    """Operations of every kind, in all orders."""
    generator = np.random.default_rng(seed)
    choices: list[tuple[Op, list[float]]] = [
        (Op.AFFINE, [0.95, 0.2, -3.3, -0.2, 0.95, 4.1]),
        (Op.AFFINE, [1, 0, 6.5, 0, 1, -2.25]),
        (Op.BRIGHTNESS, [1.3]),
        (Op.CONTRAST, [0.4]),
        (Op.SATURATION, [1.7]),
        (Op.SHARPNESS, [1.8]),
        (Op.POSTERIZE, [3]),
        (Op.SOLARIZE, [120]),
        (Op.SOLARIZE_ADD, [60, 128]),
        (Op.INVERT, []),
        (Op.AUTOCONTRAST, []),
        (Op.EQUALIZE, []),
        (Op.GAMMA, [0.8]),
        (Op.BLUR, [1.1]),
        (Op.NOISE, [9.0]),
        (Op.ERASE, [size // 4, size // 3, size // 3, size // 4, 1, 0, 0, 0]),
        (Op.GRID_SHUFFLE, [3]),
    ]
    chosen = [[choices[index] for index in generator.permutation(len(choices))[:5]] for _ in range(count)]
    return program_of(chosen, generator.integers(0, 2**63, count).tolist())
