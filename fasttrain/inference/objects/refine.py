"""A mask that follows the edges of its photo."""

import numpy as np
from PIL import Image

from fasttrain.inference.objects.settings import CrfSettings
from fasttrain.kernels.dense_crf import dense_crf, label_energies


def refined(mask: np.ndarray, pixels: np.ndarray, crf: CrfSettings) -> np.ndarray:
    """The mask after the dense CRF.

    Args:
        mask: (H, W) bool.
        pixels: (H, W, 3) uint8, the photo.

    Returns:
        (H, W) bool.
    """
    height, width = mask.shape
    longer = max(height, width)
    if not crf.longest or longer <= crf.longest:
        return _shares(mask, pixels, crf) > 0.5
    wide, tall = (max(1, round(side * crf.longest / longer)) for side in (width, height))
    small = np.asarray(Image.fromarray(pixels).resize((wide, tall), Image.Resampling.BILINEAR))
    small_mask = np.asarray(Image.fromarray(mask.astype(np.uint8)).resize((wide, tall), Image.Resampling.NEAREST)) > 0
    shares = Image.fromarray(_shares(small_mask, small, crf))
    return np.asarray(shares.resize((width, height), Image.Resampling.BILINEAR)) > 0.5


def _shares(mask: np.ndarray, pixels: np.ndarray, crf: CrfSettings) -> np.ndarray:
    """(H, W) float32: how probable the object is."""
    shares: np.ndarray = dense_crf(
        label_energies(mask, 2, crf.share),
        pixels,
        iterations=crf.iterations,
        near=(crf.near_sigma, crf.near_weight),
        alike=(crf.alike_sigma, crf.alike_colour, crf.alike_weight),
    )[1]
    return shares
