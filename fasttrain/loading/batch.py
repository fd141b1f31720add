"""What a loader yields."""

from typing import NamedTuple

from torch import Tensor


class Batch(NamedTuple):
    """One batch, on the loader's device.

    Attributes:
        images: (B, 3, H, W) in channels-last memory format and the loader's dtype, normalised; with several views of
            each sample (views, B, 3, H, W), every ``images[v]`` as said.
        labels: (B,) int64, -1 where unknown.
        ids: (B,) int64 rows of the listed data set, -1 where the batch is padded. `Loader.string_ids` names them.
        valid: (B,) bool; False for padding at the tail of an exact evaluation and for skipped samples.
    """

    images: Tensor
    labels: Tensor
    ids: Tensor
    valid: Tensor


def all_views(images: Tensor) -> Tensor:
    """(views * B, 3, H, W) of a batch's images, all samples of the first view first."""
    return images.flatten(0, 1) if images.ndim == 5 else images


def first_view(images: Tensor) -> Tensor:
    """(B, 3, H, W) of a batch's images."""
    return images[0] if images.ndim == 5 else images


def split_batch(batch: Batch, size: int) -> list[Batch]:
    """Parts of `size` samples, with all views of each; the last one may be smaller."""
    images = batch.images.split(size, batch.images.ndim - 4)
    others = [tensor.split(size) for tensor in batch[1:]]
    return [Batch(*part) for part in zip(images, *others, strict=True)]
