"""Images under the colours of their masks."""

from collections.abc import Sequence

import numpy as np

from fasttrain.base.palette import Colour
from fasttrain.beton_build.mask_info import IGNORE

OPACITY = 0.5
_STRIPE = 6  # pixels of the stripes that stand for what counts for nothing


def overlay(pixels: np.ndarray, mask: np.ndarray, palette: Sequence[Colour], opacity: float = OPACITY) -> np.ndarray:
    """An image (H, W, 3) uint8 under the colours of its mask (H, W) uint8; striped where the mask is `IGNORE`.

    Args:
        palette: colours of the classes from 0 on.
        opacity: of the colours, 0 to 1.
    """
    table = np.full((256, 3), 255, np.float32)
    table[: len(palette)] = np.array(palette, np.float32)[:256]
    mixed = (1 - opacity) * pixels + opacity * table[mask]
    y, x = np.mgrid[: mask.shape[0], : mask.shape[1]]
    dark = 0.35 * pixels + np.where((x + y) // _STRIPE % 2, 110, 0)[..., None]
    result: np.ndarray = np.where((mask == IGNORE)[..., None], dark, mixed).round().clip(0, 255).astype(np.uint8)
    return result
