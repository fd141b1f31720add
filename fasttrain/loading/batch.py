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
