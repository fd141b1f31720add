"""The distance of the student's features from those of the frozen pretrained backbone (Hoyer et al., "DAFormer", CVPR
2022, eq. 6 to 9): what ImageNet has taught of things is not to be forgotten."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from fasttrain.beton_build.mask_info import IGNORE


def downscaled(labels: Tensor, size: tuple[int, int], num_classes: int, majority: float = 0.75) -> Tensor:
    """Labels of the cells of a coarser grid: the class that at least a share `majority` of a cell's pixels have, and
    255 where there is none.

    Args:
        labels: (B, H, W) uint8.
        size: height and width of the grid; where its cells do not divide the image, they overlap by a pixel.

    Returns:
        (B, h, w) uint8.
    """
    shares = torch.stack([(labels == number).float() for number in range(num_classes)], 1)
    share, best = F.adaptive_avg_pool2d(shares, size).max(1)
    # Shares are means of zeros and ones in float32: a share of exactly 0.75 may come out one unit lower.
    return torch.where(share >= majority - 1e-6, best, IGNORE).to(torch.uint8)


def feature_distance(student: Tensor, frozen: Tensor, counts: Tensor) -> Tensor:
    """Mean L2 distance of features over the cells that count; 0, with a gradient of 0, where none does.

    Args:
        student, frozen: (B, D, h, w).
        counts: (B, h, w) bool.
    """
    distances = torch.linalg.vector_norm(student.float() - frozen.float(), dim=1)
    return torch.where(counts, distances, 0.0).sum() / counts.sum().clamp(min=1)


def of_classes(labels: Tensor, classes: Sequence[int]) -> Tensor:
    """Where labels (any shape, uint8) are of some classes: bool."""
    wanted = torch.zeros(IGNORE + 1, dtype=torch.bool)
    wanted[list(classes)] = True
    return wanted.to(labels.device, non_blocking=True)[labels.long()]
