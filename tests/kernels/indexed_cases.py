"""JPEGs of every kind that has an index, and views of them."""

from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from fasttrain.kernels.indexed import index_jpeg
from fasttrain.kernels.loading import Geometry

FACTORS = {"4:4:4": (1, 1), "4:2:2": (2, 1), "4:2:0": (2, 2), "4:4:0": (1, 2), "4:1:1": (4, 1), "grey": (1, 1)}


def picture(width: int, height: int, seed: int = 0) -> np.ndarray:
    """Like a photo: smooth colours with edges, and texture in places."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    waves = np.stack([np.sin(x / (30 + 9 * channel) + y / (41 - 7 * channel)) for channel in range(3)], -1)
    edges = 35.0 * ((x // 37 + y // 29) % 2)[..., None]
    texture = generator.normal(0, 12, (height, width, 1)) * (x > width // 2)[..., None]
    return np.clip(110 + 80 * waves + edges + texture, 0, 255).astype(np.uint8)


def relabelled(stream: bytes, across: int, down: int, factors: int) -> bytes:
    """A stream said to be of another sub-sampling of as many blocks an MCU, which Pillow does not write.

    Its sides are multiplied by `across` and `down` halves, so that it has as many MCUs: other pixels, but as sound.
    """
    width, height = Image.open(BytesIO(stream)).size
    at = stream.index(b"\xff\xc0")
    changed = bytearray(stream)
    changed[at + 5 : at + 7] = (-(-height * down // 2)).to_bytes(2, "big")
    changed[at + 7 : at + 9] = (-(-width * across // 2)).to_bytes(2, "big")
    changed[at + 11] = factors
    return bytes(changed)


def encode(pixels: np.ndarray, sampling: str = "4:4:4", **options: Any) -> bytes:
    image = Image.fromarray(pixels)
    if sampling == "grey":
        image = image.convert("L")
    else:
        options["subsampling"] = {"4:4:0": "4:2:2", "4:1:1": "4:2:0"}.get(sampling, sampling)
    stream = BytesIO()
    image.save(stream, "JPEG", **{"quality": 90, **options})
    if sampling == "4:4:0":
        return relabelled(stream.getvalue(), 1, 4, 0x12)
    return relabelled(stream.getvalue(), 4, 1, 0x41) if sampling == "4:1:1" else stream.getvalue()


def units_of(stream: bytes) -> tuple[int, int]:
    """MCUs across and down."""
    image = Image.open(BytesIO(stream))
    (across, down) = image.layer[0][1:3] if len(image.layer) == 3 else (1, 1)  # type: ignore[attr-defined]
    return -(-image.width // (8 * across)), -(-image.height // (8 * down))


def indexed(stream: bytes) -> np.ndarray:
    index = index_jpeg(stream)
    assert index is not None
    return index


def geometry(boxes: Any, resized: Any, windows: Any = None, flips: Any = None, filter_: Any = "bilinear") -> Geometry:
    count = len(boxes)
    flags = np.zeros((count, 2), bool) if flips is None else np.array(flips)
    starts = np.zeros((count, 2), np.int64) if windows is None else np.array(windows)
    return Geometry(np.array(boxes), np.array(resized), starts, flags[:, 0], flags[:, 1], filter_)


def random_geometry(generator: np.random.Generator, width: int, height: int, size: int) -> Geometry:
    box_w, box_h = int(generator.integers(40, width + 1)), int(generator.integers(40, height + 1))
    box = (int(generator.integers(0, width - box_w + 1)), int(generator.integers(0, height - box_h + 1)), box_w, box_h)
    resized = [int(n) for n in generator.integers(size, size + 30, 2)]
    window = [int(generator.integers(0, side - size + 1)) for side in resized]
    return geometry([box], [resized], [window], [generator.integers(0, 2, 2) == 1])
