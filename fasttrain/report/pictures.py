"""Pictures for reports: small copies of images, in grids with what they are and what they were taken for."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image as PillowImage

from fasttrain.report.page import Grid, Image, Picture

THUMBNAIL_SIDE = 128  # pixels; twice the tiles' size on screen at the least
ENLARGE_BELOW = 64  # smaller images are enlarged pixel by pixel, so that the browser does not blur them


def thumbnail(pixels: np.ndarray, side: int = THUMBNAIL_SIDE) -> Image:
    """A copy of an RGB image, uint8 (H, W, 3), that fits into `side`×`side` pixels."""
    image = PillowImage.fromarray(pixels)
    longest = max(image.size)
    if longest < ENLARGE_BELOW:
        factor = -(-ENLARGE_BELOW // longest)
        image = image.resize((image.width * factor, image.height * factor), PillowImage.Resampling.NEAREST)
    image.thumbnail((side, side), PillowImage.Resampling.LANCZOS)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=88)
    return Image(out.getvalue(), "jpeg")


def picture_of_file(path: Path, width: int, height: int) -> Image:
    """A copy of a picture that lies in a file, no larger than `width`×`height` pixels.

    Raises:
        OSError: it cannot be read, or is too large to.
    """
    out = io.BytesIO()
    try:
        with PillowImage.open(path) as image:
            small = image.convert("RGB")
    except PillowImage.DecompressionBombError as error:
        raise OSError(f"{path}: {error}") from None
    small.thumbnail((width, height), PillowImage.Resampling.LANCZOS)
    small.save(out, "JPEG", quality=85)
    return Image(out.getvalue(), "jpeg")


def picture_grid(
    images: Sequence[np.ndarray], true: Sequence[str | None], predicted: Sequence[str | None], caption: str = ""
) -> Grid:
    """Images with their true and predicted class; wrong predictions are marked.

    Args:
        images: RGB, uint8 (H, W, 3) each, of any size.
        true: name of each true class, None where unknown.
        predicted: name of each predicted class, None where there is none.
    """
    pictures = []
    for pixels, truth, guess in zip(images, true, predicted, strict=True):
        wrong = truth is not None and guess is not None and truth != guess
        lines = [] if truth is None else [truth]
        if guess is not None:
            lines.append(f"taken for {guess}" if wrong or truth is None else "✓")
        pictures.append(Picture(thumbnail(pixels), lines, wrong))
    return Grid(pictures, caption)
