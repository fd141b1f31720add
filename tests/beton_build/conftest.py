"""Small images, made here; files on disk in every shape that the tests need."""

from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from PIL import Image

settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")


def smooth_pixels(width: int, height: int, seed: int = 0) -> np.ndarray:
    """(height, width, 3) uint8: smooth, so that JPEG keeps it closely; different for every seed."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
    return np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))


def encode(pixels: np.ndarray | Image.Image, fmt: str = "JPEG", **options: Any) -> bytes:
    """The bytes of an image file."""
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    stream = BytesIO()
    image.save(stream, fmt, **options)
    return stream.getvalue()


@pytest.fixture(name="pixels")
def _pixels() -> Callable[..., np.ndarray]:
    return smooth_pixels


@pytest.fixture(name="encoded")
def _encoded() -> Callable[..., bytes]:
    return encode


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A class-per-folder tree: cat 6, dog 4, emu 2 images of 24x16 to 35x27 pixels, JPEG, PNG and WebP."""
    root = tmp_path / "tree"
    formats = [("jpg", "JPEG", {"quality": 92}), ("png", "PNG", {}), ("webp", "WEBP", {"lossless": True})]
    seed = 0
    for name, count in (("cat", 6), ("dog", 4), ("emu", 2)):
        (root / name).mkdir(parents=True)
        for number in range(count):
            suffix, fmt, options = formats[number % 3]
            data = encode(smooth_pixels(24 + seed, 16 + seed, seed), fmt, **options)
            (root / name / f"{number:02d}.{suffix}").write_bytes(data)
            seed += 1
    return root
