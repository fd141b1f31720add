"""Training samples as the model sees them, for a look at labels and augmentation."""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from fasttrain.loading.batch import Batch, first_view

MAX_SAMPLES = 24
COLUMNS = 6
_MAX_NAME = 22
_SHORT = 8  # letters of a name beside another one
_SIDE, _MARGIN, _LINE = 160, 6, 20  # of a picture, between them, of the name above; pixels


def sample_grid(
    batch: Batch, class_names: Sequence[str] | None, mean: Sequence[float], std: Sequence[float]
) -> np.ndarray:
    """The first valid samples of a batch with their labels, normalisation undone: uint8 (H, W, 3)."""
    rows = torch.nonzero(batch.valid)[:MAX_SAMPLES, 0]
    pixels, labels = pixels_of(first_view(batch.images)[rows], mean, std), batch.labels[rows].tolist()
    return _drawn(pixels, [shown_name(label, class_names) for label in labels])


def mixed_row(
    name: str,
    batch: Batch,
    targets: torch.Tensor | None,
    class_names: Sequence[str] | None,
    mean: Sequence[float],
    std: Sequence[float],
) -> np.ndarray:
    """The first valid samples of a mixed batch as one row of a grid: uint8 (H, W, 3). Above each stands `name`, or its
    two largest targets ((B, C)) where labels are mixed, too."""
    rows = torch.nonzero(batch.valid)[:COLUMNS, 0]
    pixels, names = pixels_of(batch.images[rows], mean, std), [name] * len(rows)
    if targets is not None:
        shares, classes = (values.tolist() for values in targets[rows].topk(min(2, targets.shape[1])))
        named = [[shown_name(number, class_names)[:_SHORT] for number in row] for row in classes]
        parts = [zip(words, row, strict=True) for words, row in zip(named, shares, strict=True)]
        names = [" + ".join(f"{share:.2f} {word}" for word, share in row if share > 0.005) for row in parts]
    return _drawn(pixels, names, name if targets is not None else "")


def _drawn(pixels: np.ndarray, names: Sequence[str], heading: str = "") -> np.ndarray:
    """Pictures with their names above, row by row, under a heading where there is one."""
    wide, high, down = _SIDE + _MARGIN, _LINE + _SIDE + _MARGIN, _MARGIN + (_LINE if heading else 0)
    grid = Image.new("RGB", (COLUMNS * wide + _MARGIN, -(-len(names) // COLUMNS) * high + down), "white")
    drawing, font = ImageDraw.Draw(grid), ImageFont.load_default(size=12)
    drawing.text((_MARGIN, _MARGIN), heading, "black", font)
    for number, (image, name) in enumerate(zip(pixels, names, strict=True)):
        left, top = _MARGIN + number % COLUMNS * wide, down + number // COLUMNS * high
        drawing.text((left, top), name, "black", font)
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
