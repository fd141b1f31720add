"""Logits of images: of the whole at once, or of windows that slide over it."""

from collections.abc import Callable

import torch
from torch import Tensor

Model = Callable[[Tensor], Tensor]  # (B, 3, H, W) to logits (B, C, H, W)


def whole(model: Model, images: Tensor) -> Tensor:
    """Logits float32 (B, C, H, W) of images (B, 3, H, W)."""
    return model(images).float()


def slide(model: Model, images: Tensor, crop: int, stride: int, at_once: int = 8) -> Tensor:
    """Logits float32 (B, C, H, W) of images (B, 3, H, W): the mean over all windows that a pixel lies in.

    Windows of `crop` x `crop` pixels begin every `stride` pixels; the last of a row or column ends at the image's edge
    (as mmsegmentation's ``slide`` has it). An image that is smaller than the crop fills its one window.

    Args:
        at_once: windows that pass through the model at a time, of all images.

    Raises:
        ValueError: windows so far apart would leave pixels out.
    """
    if not 0 < stride <= crop:
        raise ValueError(f"a stride of {stride} with windows of {crop} pixels would leave pixels out")
    count, _, height, width = images.shape
    tall, wide = min(crop, height), min(crop, width)
    corners = [(top, left) for top in _starts(height, tall, stride) for left in _starts(width, wide, stride)]
    places = [(image, *corner) for corner in corners for image in range(count)]
    total: Tensor | None = None
    times = torch.zeros((1, 1, height, width), device=images.device)
    for top, left in corners:
        times[..., top : top + tall, left : left + wide] += 1
    for first in range(0, len(places), at_once):
        part = places[first : first + at_once]
        windows = torch.stack([images[i, :, top : top + tall, left : left + wide] for i, top, left in part])
        logits = model(windows.contiguous(memory_format=torch.channels_last)).float()
        if total is None:
            total = torch.zeros((count, logits.shape[1], height, width), device=images.device)
        for (image, top, left), scores in zip(part, logits, strict=True):
            total[image, :, top : top + tall, left : left + wide] += scores
    assert total is not None
    return total / times


def _starts(length: int, crop: int, stride: int) -> list[int]:
    """Where windows begin along a side."""
    steps = -(-(length - crop) // stride)
    return [min(step * stride, length - crop) for step in range(steps + 1)]
