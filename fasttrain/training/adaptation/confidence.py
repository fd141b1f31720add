"""Pseudo-labels of pixels, and how much an image's count."""

import torch
from torch import Tensor

from fasttrain.beton_build.mask_info import IGNORE


def pseudo_labels(logits: Tensor, threshold: float, counts: Tensor) -> tuple[Tensor, Tensor]:
    """The teacher's classes, and the share of confident pixels of each image, by which its pixels are weighted (the
    gate of Tranheden et al., "DACS", WACV 2021, there one for the batch).

    All classes are treated alike, and no rows are left out.

    Args:
        logits: (B, C, H, W).
        threshold: a pixel with at least this probability is confident.
        counts: (B, H, W) bool: pixels that are of the image; what lies beyond it has no share, and no label.

    Returns:
        labels (B, H, W) uint8, and shares (B,) float32, 0 for an image without a pixel that counts.
    """
    probability, best = logits.float().softmax(1).max(1)
    confident = (probability >= threshold) & counts
    share = confident.sum((1, 2)) / counts.sum((1, 2)).clamp(min=1)
    return torch.where(counts, best, IGNORE).to(torch.uint8), share.float()
