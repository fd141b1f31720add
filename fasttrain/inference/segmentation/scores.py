"""Scores of every pixel at its image's own size, over one or several views of each image."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from fasttrain.base.config import Settings, refuse_idle
from fasttrain.inference.forward import Amp, autocast
from fasttrain.inference.segmentation.forward import slide, whole
from fasttrain.inference.segmentation.shown import explained, shown_by_size
from fasttrain.loading.dataset import readable_sizes
from fasttrain.loading.loader import Loader
from fasttrain.loading.open_dataset import Data, open_dataset
from fasttrain.loading.segmentation_views import WholeView
from fasttrain.loading.selection import select_rows
from fasttrain.models.segmentation.segmenter import resized

_VALUES_AT_ONCE = 1 << 27  # scores at full size: half a gigabyte
_INSTEAD = (
    "use a smaller --batch-size, or windows: --mode slide",
    "show it windows of its own size: --mode slide --crop N",
)


class ViewSettings(Settings):
    """How images are shown to a model that has been trained.

    Attributes:
        mode: ``whole`` images, or windows that ``slide`` over them.
        crop: side of a window in pixels; None for that of the training crops.
        stride: pixels from one window to the next; None for two thirds of `crop`.
        scales: factors of the images' size; the probabilities are averaged over all of them (DAFormer: 0.5, 0.75, 1,
            1.25, 1.5, 1.75).
        hflip: mirror images are averaged, too.
    """

    mode: Literal["whole", "slide"] = "whole"
    crop: int | None = Field(default=None, ge=1)
    stride: int | None = Field(default=None, ge=1)
    scales: tuple[Annotated[float, Field(gt=0)], ...] = Field(default=(1.0,), min_length=1)
    hflip: bool = False

    @model_validator(mode="after")
    def _windows_leave_nothing_out(self) -> "ViewSettings":
        if self.mode == "whole":
            refuse_idle(self, {"mode", "scales", "hflip"}, "mode whole")
        if self.crop is not None and self.stride is not None and self.stride > self.crop:
            raise ValueError(f"a stride of {self.stride} with windows of {self.crop} pixels would leave pixels out")
        return self

    @property
    def count(self) -> int:
        """Views of each image."""
        return len(self.scales) * (2 if self.hflip else 1)

    def logits(self, model: nn.Module, images: Tensor, crop: int | None = None) -> Tensor:
        """float32 (B, C, H, W) of one view of images (B, 3, H, W).

        Args:
            crop: side of the training crops.
        """
        if self.mode == "whole":
            return whole(model, images)
        side = self.crop or crop or min(images.shape[-2:])
        return slide(model, images, side, min(side, self.stride or max(1, 2 * side // 3)), max(len(images), 8))


@dataclass(frozen=True)
class Scored:
    """Images of one size with their scores.

    Attributes:
        rows: of the data set.
        scores: float32 (n, C, H, W) at the images' own size: probabilities, or logits where only their order counts.
    """

    rows: list[int]
    scores: Tensor


@contextmanager
def open_views(
    data: Data, batch_size: int, view: WholeView, how: ViewSettings, indices: Any = None, **options: Any
) -> Iterator[list[Loader]]:
    """Loaders of the same samples in the same order, one for each scale. Samples of one size come one after the other.

    Args:
        indices, options: of the `Loader`.
    """
    indices = by_size(data, indices)
    with ExitStack() as stack:
        yield [
            stack.enter_context(open_scale(data, batch_size, view, scale, indices, **options)) for scale in how.scales
        ]


def open_scale(data: Data, batch_size: int, view: WholeView, scale: float, indices: Any, **options: Any) -> Loader:
    """A loader of whole images at a scale."""
    scaled = view if scale == 1 else view.model_copy(update={"scale": view.scale * scale})
    return Loader(data, batch_size, view=scaled, order="sequential", indices=indices, **options)


def by_size(data: Data, indices: Any = None) -> np.ndarray:
    """Rows int64 (n,) of a data set, or of those of its samples that `indices` name, ordered by their images' size."""
    dataset = open_dataset(data)
    try:
        rows = select_rows(dataset, indices)
        sizes, _ = readable_sizes(dataset, rows)
    finally:
        dataset.close()
    ordered: np.ndarray = rows[np.lexsort((rows, sizes[:, 0], sizes[:, 1]))]
    return ordered


@torch.inference_mode()
def score_images(
    model: nn.Module,
    loaders: Sequence[Loader],
    how: ViewSettings,
    *,
    amp: Amp = "off",
    crop: int | None = None,
    probabilities: bool = True,
    label: str = "predict",
) -> Iterator[Scored]:
    """Score all images of this rank, showing progress. The model is used in eval mode, and its mode is put back.

    Images of one size within a batch pass through the model together, without any padding.

    Args:
        loaders: of `open_views`.
        crop: side of the training crops, for ``slide``.
        probabilities: False allows logits, where there is but one view.
    """
    was_training = model.training
    model.eval()
    device = loaders[0].device
    try:
        for shown in shown_by_size(loaders, label):
            with explained(shown, device, _INSTEAD):
                logits = [one for images in shown.views for one in _of_scale(model, images, how, amp, crop)]
            yield from _at_own_size(logits, shown.rows, shown.size, probabilities)
    finally:
        model.train(was_training)


def _of_scale(model: nn.Module, images: Tensor, how: ViewSettings, amp: Amp, crop: int | None) -> list[Tensor]:
    """Logits of images (B, 3, H, W), and of their mirror images, mirrored back."""
    with autocast(images.device, amp):
        logits = [how.logits(model, images, crop)]
        if how.hflip:
            logits.append(how.logits(model, images.flip(3), crop).flip(3))
    return logits


def _at_own_size(logits: list[Tensor], rows: list[int], size: tuple[int, int], probabilities: bool) -> Iterator[Scored]:
    """Resize the logits of all views and average their probabilities, a few images at a time."""
    width, height = size
    together = max(1, _VALUES_AT_ONCE // (logits[0].shape[1] * width * height))
    for start in range(0, len(rows), together):
        part = slice(start, start + together)
        if len(logits) == 1:
            scores = resized(logits[0][part], (height, width))
            scores = scores.softmax(1) if probabilities else scores
        else:
            scores = torch.zeros((1,), device=logits[0].device)
            for one in logits:
                scores = scores + resized(one[part], (height, width)).softmax(1)
            scores = scores / len(logits)
        yield Scored(rows[part], scores)
