"""Training samples as the model sees them, for a look at labels and augmentation."""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from fasttrain.loading.batch import Batch, first_view

MAX_SAMPLES = 24
COLUMNS = 6
_MAX_NAME = 22
_SIDE, _MARGIN, _LINE = 160, 6, 20  # of a picture, between them, of the name above; pixels


def sample_grid(
    batch: Batch, class_names: Sequence[str] | None, mean: Sequence[float], std: Sequence[float]
) -> np.ndarray:
    """The first valid samples of a batch with their labels, normalisation undone: uint8 (H, W, 3)."""
    rows = torch.nonzero(batch.valid)[:MAX_SAMPLES, 0]
    pixels, labels = pixels_of(first_view(batch.images)[rows], mean, std), batch.labels[rows].tolist()
    wide, high = _SIDE + _MARGIN, _LINE + _SIDE + _MARGIN
    grid = Image.new("RGB", (COLUMNS * wide + _MARGIN, -(-len(rows) // COLUMNS) * high + _MARGIN), "white")
    drawing, font = ImageDraw.Draw(grid), ImageFont.load_default(size=12)
    for number, (image, label) in enumerate(zip(pixels, labels, strict=True)):
        left, top = _MARGIN + number % COLUMNS * wide, _MARGIN + number // COLUMNS * high
        drawing.text((left, top), shown_name(label, class_names), "black", font)
        grid.paste(Image.fromarray(image).resize((_SIDE, _SIDE)), (left, top + _LINE))
    return np.asarray(grid)


def pixels_of(images: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """uint8 (B, H, W, 3) of normalised images (B, 3, H, W); means and standard deviations are of values 0–1."""
    shape = (1, 3, 1, 1)
    values = images.float().cpu() * torch.tensor(std).view(shape) + torch.tensor(mean).view(shape)
    result: np.ndarray = values.mul(255).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()
    return result


def shown_name(label: int, class_names: Sequence[str] | None) -> str:
    """What a label is called, shortened where it is long."""
    name = class_names[label] if class_names is not None and 0 <= label < len(class_names) else str(label)
    return name if len(name) <= _MAX_NAME else name[: _MAX_NAME - 1] + "…"
