"""Training samples as the model sees them, for a look at labels and augmentation."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from fasttrain.loading.batch import Batch, first_view

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_SAMPLES = 24
COLUMNS = 6
_MAX_NAME = 22


def sample_grid(
    batch: Batch, class_names: Sequence[str] | None, mean: Sequence[float], std: Sequence[float]
) -> "Figure":
    """The first valid samples of a batch with their labels, normalisation undone."""
    from matplotlib.figure import Figure

    rows = torch.nonzero(batch.valid)[:MAX_SAMPLES, 0]
    pixels = pixels_of(first_view(batch.images)[rows], mean, std)
    labels = batch.labels[rows].tolist()
    down = max(1, -(-len(rows) // COLUMNS))
    figure = Figure(figsize=(1.7 * COLUMNS, 1.9 * down), layout="constrained")
    for axes in figure.subplots(down, COLUMNS, squeeze=False).ravel():
        axes.set_axis_off()
    for axes, image, label in zip(figure.axes, pixels, labels, strict=False):
        axes.imshow(image)
        axes.set_title(_name(label, class_names), fontsize=7, parse_math=False)
    return figure


def pixels_of(images: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """uint8 (B, H, W, 3) of normalised images (B, 3, H, W); means and standard deviations are of values 0–1."""
    shape = (1, 3, 1, 1)
    values = images.float().cpu() * torch.tensor(std).view(shape) + torch.tensor(mean).view(shape)
    result: np.ndarray = values.mul(255).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()
    return result


def _name(label: int, class_names: Sequence[str] | None) -> str:
    name = class_names[label] if class_names is not None and 0 <= label < len(class_names) else str(label)
    return name if len(name) <= _MAX_NAME else name[: _MAX_NAME - 1] + "…"
