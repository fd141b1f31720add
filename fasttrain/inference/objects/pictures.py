"""Photos beside themselves under their object masks, as one picture."""

from collections.abc import Iterable

import numpy as np
from PIL import Image

from fasttrain.base.palette import Colour
from fasttrain.inference.segmentation.overlays import overlay

_SIDE, _MARGIN, _COLUMNS = 224, 6, 3
_COLOURS: tuple[Colour, ...] = ((0, 0, 0), (255, 40, 40))


def object_grid(samples: Iterable[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """uint8 (H, W, 3) of photos (h, w, 3) uint8 and masks (h, w) of 0 and 1."""
    tiles = [_tile(pixels, mask) for pixels, mask in samples]
    rows = -(-len(tiles) // _COLUMNS)
    wide, high = 2 * _SIDE + _MARGIN, _SIDE + _MARGIN
    grid = Image.new("RGB", (min(_COLUMNS, len(tiles)) * wide + _MARGIN, rows * high + _MARGIN), "white")
    for number, tile in enumerate(tiles):
        grid.paste(tile, (_MARGIN + number % _COLUMNS * wide, _MARGIN + number // _COLUMNS * high))
    return np.asarray(grid)


def _tile(pixels: np.ndarray, mask: np.ndarray) -> Image.Image:
    both = Image.new("RGB", (2 * _SIDE, _SIDE), "white")
    for place, picture in enumerate((pixels, overlay(pixels, mask, _COLOURS))):
        image = Image.fromarray(picture)
        image.thumbnail((_SIDE, _SIDE))
        both.paste(image, (place * _SIDE, 0))
    return both
