"""Activation maps of whole images, added up over scales and mirror images."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fasttrain.inference.forward import Amp, autocast
from fasttrain.inference.segmentation.scores import ViewSettings
from fasttrain.inference.segmentation.shown import Shown, explained, shown_by_size
from fasttrain.loading.loader import Loader
from fasttrain.models.objects.opened import OpenedMapper
from fasttrain.models.segmentation.segmenter import resized

_LEAST = 1e-5  # of a maximum that is divided by
_INSTEAD = ("use a smaller --batch-size, --size or fewer --scales", "use another --size or other --scales")


@dataclass(frozen=True)
class Mapped:
    """Images of one size with their maps.

    Attributes:
        rows: of the data set.
        maps: (n, H, W) float32 on the CPU at the images' own size, high on objects, with 1 as the maximum of each.
    """

    rows: list[int]
    maps: Tensor


@torch.inference_mode()
def map_images(
    opened: OpenedMapper, loaders: Sequence[Loader], how: ViewSettings, *, amp: Amp = "off", label: str = "masks"
) -> Iterator[Mapped]:
    """Map all images of this rank, showing progress.

    Args:
        loaders: of `fasttrain.inference.segmentation.scores.open_views`, of the scales of `how`.
    """
    device = loaders[0].device
    for shown in shown_by_size(loaders, label):
        with explained(shown, device, _INSTEAD):
            total = _added_up(opened, shown, how.hflip, amp)
        maps = total / total.amax((2, 3), keepdim=True).clamp(min=_LEAST)
        yield Mapped(shown.rows, maps[:, 0].cpu())


def _added_up(opened: OpenedMapper, shown: Shown, hflip: bool, amp: Amp) -> Tensor:
    """(n, 1, H, W): the sum over all views, each resized to the images' size."""
    width, height = shown.size
    total = torch.zeros((), device=shown.views[0].device)
    for images in shown.views:
        maps = _on_objects(opened, images, amp)
        if hflip:
            maps = maps + _on_objects(opened, images.flip(3), amp).flip(3)
        total = total + resized(maps, (height, width))
    return total


def _on_objects(opened: OpenedMapper, images: Tensor, amp: Amp) -> Tensor:
    with autocast(images.device, amp):
        maps = opened.module.maps(images)
    return maps if opened.shows == "objects" else 1 - maps
