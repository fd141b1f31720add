"""Masks as palette PNGs: the class numbers as they are, in colours that people can look at."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from fasttrain.base.atomic import atomic_open

Colour = tuple[int, int, int]
_LEVELS = 3  # bits of a class number that a channel shows


def default_palette(classes: int = 256) -> tuple[Colour, ...]:
    """Colours of classes that nobody declared any for: those of Pascal VOC, which spread the bits of a number over the
    channels."""
    palette = []
    for number in range(classes):
        red = green = blue = 0
        for bit in range(8 // _LEVELS + 1):
            part = number >> (_LEVELS * bit)
            red |= (part & 1) << (7 - bit)
            green |= (part >> 1 & 1) << (7 - bit)
            blue |= (part >> 2 & 1) << (7 - bit)
        palette.append((red, green, blue))
    return tuple(palette)


def palette_png(mask: np.ndarray, palette: Sequence[Colour] | None = None) -> bytes:
    """A mask, (H, W) uint8, as a palette PNG whose indices are its values.

    Args:
        palette: colours of the values from 0 on; `default_palette` if None. Values beyond it are white.
    """
    if mask.dtype != np.uint8 or mask.ndim != 2:
        raise ValueError(f"a mask is (H, W) uint8, not {mask.shape} of {mask.dtype}")
    colours = list(default_palette()[:255] if palette is None else palette[:256])
    colours += [(255, 255, 255)] * (256 - len(colours))
    image = Image.fromarray(np.ascontiguousarray(mask))
    image.putpalette([level for colour in colours for level in colour])
    out = BytesIO()
    image.save(out, "PNG", optimize=False)
    return out.getvalue()


def write_palette_png(path: Path, mask: np.ndarray, palette: Sequence[Colour] | None = None) -> None:
    """Write `palette_png` to a file, whole or not at all."""
    data = palette_png(mask, palette)
    with atomic_open(path, "wb") as file:
        file.write(data)
