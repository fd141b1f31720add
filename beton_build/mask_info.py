"""What a `.beton` says about its masks.

A mask is stored as height x width bytes, row by row, in a bytes field: the number of each pixel's class, or `IGNORE`.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from fasttrain.base.errors import BetonError
from fasttrain.beton_build.format import BYTES_FIELD, FieldSpec

MASK_FIELD = FieldSpec("mask", BYTES_FIELD)
IGNORE = 255  # of pixels that count for nothing
MAX_CLASSES = 255
LAYOUT = "height x width uint8, row by row"

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class MaskInfo:
    """What a file says about its masks.

    Attributes:
        field: name of the bytes field.
        classes, palette: names and colours of the values 0, 1, …; None where nobody declared them.
        ignore: value of pixels that count for nothing.
    """

    field: str
    classes: tuple[str, ...] | None
    palette: tuple[Colour, ...] | None
    ignore: int

    @classmethod
    def parse(cls, stored: Any, where: object) -> "MaskInfo | None":
        """Read what a file's description of its masks says; None where a file says nothing.

        Raises:
            BetonError: it is damaged.
        """
        if stored is None:
            return None
        try:
            classes, palette = stored["classes"], stored["palette"]
            if stored["layout"] != LAYOUT:
                raise ValueError
            colours = None if palette is None else tuple((int(r), int(g), int(b)) for r, g, b in palette)
            names = None if classes is None else tuple(map(str, classes))
            if names is not None and not 0 < len(names) <= MAX_CLASSES:
                raise ValueError
            if colours is not None and any(not 0 <= level <= 255 for colour in colours for level in colour):
                raise ValueError
            return cls(str(stored["field"]), names, colours, int(stored["ignore"]))
        except (KeyError, TypeError, ValueError):
            raise BetonError(f"{where} is damaged: its description of masks cannot be read") from None


def count_pixels(mask: np.ndarray, classes: int) -> np.ndarray:
    """(classes + 1,) uint32: pixels of each class in a mask (uint8, flat or not), then those of `IGNORE`."""
    counts = np.bincount(mask.ravel(), minlength=256)
    return np.append(counts[:classes], counts[IGNORE]).astype(np.uint32)
