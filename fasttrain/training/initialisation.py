"""What a new model starts from, where that depends on the data."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from fasttrain.base.console import say
from fasttrain.base.errors import ImageError
from fasttrain.base.process import is_main
from fasttrain.loading.dataset import ImageDataset, readable_sizes
from fasttrain.loading.device_stage import normalisation_of
from fasttrain.loading.loader import Loader
from fasttrain.loading.open_dataset import Data, open_dataset
from fasttrain.loading.plan import plan_batch
from fasttrain.loading.portable import render
from fasttrain.loading.views import EvalView
from fasttrain.models.whitening import whiten_first_convolution

_PIXELS = 5_000_000  # looked at: many times more than a filter has weights
_FEWEST = 500


def whiten(model: nn.Module, data: Data, loader: Loader, view: EvalView) -> None:
    """Make the first convolution of a model on the CPU whiten patches of training images, the same on every rank.

    Args:
        data: the training data, which are opened anew: what `loader` keeps in memory stays as a resumed run finds it.
        loader: of these data; images are taken at equal distances from its samples, and broken ones treated alike.
        view: they are seen with.
    """
    dataset = open_dataset(data)
    try:
        images = _images(dataset, loader.rows, view, loader.on_error == "skip")
        count = whiten_first_convolution(model, images)
    finally:
        dataset.close()
    if is_main():
        say(f"the first convolution whitens {count} components of the training images")


def _images(dataset: ImageDataset, rows: np.ndarray, view: EvalView, tolerant: bool) -> Iterator[Tensor]:
    """(3, size, size) float32 each, normalised."""
    count = min(len(rows), max(_FEWEST, _PIXELS // view.size**2))
    rows = rows[np.linspace(0, len(rows) - 1, count).astype(np.int64)]
    sizes, unreadable = readable_sizes(dataset, rows)
    scale, shift = (torch.tensor(values)[:, None, None] for values in _affine(view))
    for position, row in enumerate(rows.tolist()):
        try:
            if position in unreadable:
                raise unreadable[position]
            pixels = dataset.decode(row)
        except ImageError:
            if not tolerant:
                raise
            continue
        plan = plan_batch(view, rows[[position]], np.zeros(1, np.uint64), sizes[[position]])
        shown = torch.from_numpy(render(pixels, plan, 0).copy())
        yield shown.permute(2, 0, 1) * scale + shift


def _affine(view: EvalView) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    normalisation = normalisation_of(view)
    return normalisation.scale, normalisation.shift
