"""Whole images as models are shown them at several scales: those of one size within a batch together, unpadded."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fasttrain.base.console import progress
from fasttrain.base.errors import ConfigError
from fasttrain.inference.memory import is_out_of_memory
from fasttrain.loading.loader import Loader
from fasttrain.loading.plan_segmentation import scaled_sizes


@dataclass(frozen=True)
class Shown:
    """Images of one size.

    Attributes:
        rows: of the data set.
        size: width and height of the images themselves.
        views: of each scale, (n, 3, H, W) on the loaders' device.
    """

    rows: list[int]
    size: tuple[int, int]
    views: list[Tensor]


def shown_by_size(loaders: Sequence[Loader], label: str) -> Iterator[Shown]:
    """The images of this rank, showing progress.

    Args:
        loaders: of the same samples in the same order, one for each scale (see
            `fasttrain.inference.segmentation.scores.open_views`).
    """
    first = loaders[0]
    with progress(label, len(first) * first.batch_size) as bar:
        for batches in zip(*loaders, strict=True):
            valid = torch.stack([batch.valid for batch in batches]).all(0).cpu()
            places = torch.nonzero(valid)[:, 0]
            rows = batches[0].ids.cpu()[places].numpy()
            sizes = first.dataset.sizes(rows) if len(rows) else np.empty((0, 2), np.int64)
            for size in np.unique(sizes, axis=0):
                chosen = np.flatnonzero((sizes == size).all(1))
                views = [
                    _cut(batch.images, places[chosen], loader.view, size)
                    for loader, batch in zip(loaders, batches, strict=True)
                ]
                yield Shown(rows[chosen].tolist(), (int(size[0]), int(size[1])), views)
            bar.advance(len(valid))


@contextmanager
def explained(shown: Shown, device: torch.device, instead: tuple[str, str]) -> Iterator[None]:
    """Say in one sentence that memory did not suffice, or what the model cannot do with images of a size.

    Args:
        instead: what to do in each of the two cases.
    """
    try:
        yield
    except (RuntimeError, AssertionError, ValueError) as error:  # timm asserts, torch and others raise
        what = f"{len(shown.rows)} images of {shown.size[0]}x{shown.size[1]} pixels"
        if is_out_of_memory(error):
            raise ConfigError(f"{what} do not fit into the memory of {device} at a time; {instead[0]}") from None
        if isinstance(error, RuntimeError):
            raise
        reason = str(error).partition("\n")[0].rstrip(".") or type(error).__name__
        raise ConfigError(f"the model does not take {what} ({reason}); {instead[1]}") from None


def _cut(images: Tensor, places: Tensor, view: Any, size: np.ndarray) -> Tensor:
    """The images at `places` of a batch, without the rest of their frames."""
    width, height = scaled_sizes(view, size[None])[0].tolist()
    chosen = images if len(places) == len(images) else images[places.to(images.device)]
    return chosen[:, :, :height, :width].contiguous(memory_format=torch.channels_last)
