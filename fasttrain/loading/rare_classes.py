"""Rare class sampling for segmentation: which images are drawn for which class of pixels."""

from dataclasses import dataclass

import numpy as np

from fasttrain.base.errors import LoaderError
from fasttrain.loading.dataset import ImageDataset


@dataclass(frozen=True)
class RareTable:
    """Pairs of an image and a class of its pixels.

    Attributes:
        positions: (n,) int64 of the image among the rows that were asked for.
        classes: (n,) int64.
        weights: (n,) float64, how often each pair is drawn; they add up to 1.
        probabilities: (C,) float64 of the classes.
    """

    positions: np.ndarray
    classes: np.ndarray
    weights: np.ndarray
    probabilities: np.ndarray


@dataclass(frozen=True)
class RareClasses:
    """Rare class sampling (Hoyer et al., "DAFormer", CVPR 2022, eq. 9 to 11): a class c, whose share of all pixels that
    count is f_c, is drawn with the probability softmax((1 - f_c) / temperature), and for it one of its images.

    Counts are those that the `.beton` holds, of masks as they are stored.

    Attributes:
        temperature: small ones prefer rare classes more; large ones draw all alike.
        min_pixels: an image belongs to a class of which it has so many pixels; of a class that no image has so many of,
            those with the most do. Classes without a pixel are never drawn.
    """

    temperature: float = 0.01
    min_pixels: int = 3000

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise LoaderError(f"the temperature of rare class sampling must be above 0, not {self.temperature}")
        if self.min_pixels < 1:
            raise LoaderError(f"min_pixels of rare class sampling must be at least 1, not {self.min_pixels}")

    def table(self, dataset: ImageDataset, rows: np.ndarray) -> RareTable:
        """The pairs of some rows of a data set.

        Raises:
            LoaderError: it has no masks, or no pixel of them counts.
        """
        pixels = dataset.mask_pixels()[rows, :-1].astype(np.int64)
        totals = pixels.sum(0)
        if not totals.any():
            raise LoaderError(f"no pixel of the masks of {dataset.name} is of a class, so none can be drawn")
        logits = (1 - totals / totals.sum()) / self.temperature
        odds = np.where(totals > 0, np.exp(logits - logits[totals > 0].max()), 0.0)
        probabilities = odds / odds.sum()
        enough = pixels >= np.clip(pixels.max(0), 1, self.min_pixels)
        classes, positions = np.nonzero(enough.T)
        weights = (probabilities / np.maximum(enough.sum(0), 1))[classes]
        return RareTable(positions, classes, weights, probabilities)
