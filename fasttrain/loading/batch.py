"""What a loader yields."""

from collections.abc import Sequence
from typing import Any, NamedTuple

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


class MaskedBatch(Batch):
    """A batch with masks; it unpacks like any other, to its first four.

    Attributes:
        masks: (B, H, W) uint8 class numbers of the images' pixels, 255 for what counts for nothing: what the masks
            leave out, what lies beyond an image, and all of a sample that is not valid. With several views
            (views, B, H, W).
    """

    masks: Tensor

    def __new__(cls, images: Tensor, labels: Tensor, ids: Tensor, valid: Tensor, masks: Tensor) -> "MaskedBatch":
        batch = tuple.__new__(cls, (images, labels, ids, valid))
        batch.masks = masks
        return batch

    def _replace(self, **changes: Any) -> "MaskedBatch":
        masks = changes.pop("masks", self.masks)
        return MaskedBatch(*Batch(*self)._replace(**changes), masks)

    def __reduce__(self) -> tuple[type["MaskedBatch"], tuple[Tensor, ...]]:
        return MaskedBatch, (*self, self.masks)


def batch_of(images: Tensor, others: Sequence[Tensor], views: int) -> Batch:
    """A batch of what the device stage gave: labels, ids, valid, and masks where there are some."""
    parts = [images, *others]
    if views > 1:
        parts[0] = images.unflatten(0, (views, -1))
        parts[4:] = [masks.unflatten(0, (views, -1)) for masks in parts[4:]]
    return MaskedBatch(*parts) if len(parts) > 4 else Batch(*parts)


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
    parts = [Batch(*part) for part in zip(images, *others, strict=True)]
    if not isinstance(batch, MaskedBatch):
        return parts
    masks = batch.masks.split(size, batch.masks.ndim - 3)
    return [MaskedBatch(*part, mask) for part, mask in zip(parts, masks, strict=True)]
