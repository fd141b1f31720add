"""Samples with their masks as the model sees them: coloured overlays, with a legend."""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from fasttrain.base.palette import Colour, default_palette
from fasttrain.beton_build.mask_info import IGNORE, MaskInfo
from fasttrain.inference.segmentation.overlays import overlay
from fasttrain.loading.batch import MaskedBatch
from fasttrain.training.pictures import pixels_of, shown_name

_MARGIN = 6  # pixels
_SHOWN = 900  # pixels that a page has across: what is wider is shown smaller, letters and all


def mask_pictures(batch: MaskedBatch, info: MaskInfo, mean: Sequence[float], std: Sequence[float]) -> list[np.ndarray]:
    """Each valid sample of a batch (its first view), beside it the same under its mask: uint8 (H, 2 W, 3)."""
    first = (batch.images, batch.masks) if batch.images.ndim == 4 else (batch.images[0], batch.masks[0])
    rows = torch.nonzero(batch.valid)[:, 0]
    images, masks = pixels_of(first[0][rows], mean, std), first[1][rows].cpu().numpy()
    colours = colours_of(info)
    return [
        np.concatenate([pixels, overlay(pixels, mask, colours)], 1) for pixels, mask in zip(images, masks, strict=True)
    ]


def colours_of(info: MaskInfo, classes: int = IGNORE) -> tuple[Colour, ...]:
    """The declared palette, or one for as many classes as there may be."""
    return info.palette if info.palette is not None else default_palette(classes)


def mask_grid(pictures: Sequence[np.ndarray], info: MaskInfo, used: Sequence[int], columns: int = 2) -> np.ndarray:
    """Pictures of `mask_pictures` side by side, and below them the colours of the classes that are `used`: uint8
    (H, W, 3)."""
    high, wide = pictures[0].shape[:2]
    rows = -(-len(pictures) // columns)
    width = columns * (wide + _MARGIN) + _MARGIN
    letters = letter_size(width)
    line, swatch, entry = 5 * letters // 3, 7 * letters // 6, 11 * letters
    across = max(1, (width - _MARGIN) // entry)
    legend = -(-(len(used) + 1) // across) * line
    grid = Image.new("RGB", (width, rows * (high + _MARGIN) + 2 * _MARGIN + legend), "white")
    for number, picture in enumerate(pictures):
        left, top = number % columns * (wide + _MARGIN), number // columns * (high + _MARGIN)
        grid.paste(Image.fromarray(picture), (_MARGIN + left, _MARGIN + top))
    drawing, font = ImageDraw.Draw(grid), ImageFont.load_default(size=letters)
    colours, names = colours_of(info), info.classes
    entries = [(shown_name(number, names), colours[number]) for number in used]
    for number, (name, colour) in enumerate([*entries, ("ignored (striped)", (110, 110, 110))]):
        left = _MARGIN + number % across * entry
        top = rows * (high + _MARGIN) + _MARGIN + number // across * line
        drawing.rectangle((left, top, left + swatch, top + swatch), colour, "black")
        drawing.text((left + swatch + 4, top), name, "black", font)
    return np.asarray(grid)


def letter_size(width: int) -> int:
    """Pixels that letters need to be read on a picture of so many across that is shown on a page."""
    return round(12 * max(1.0, width / _SHOWN))
