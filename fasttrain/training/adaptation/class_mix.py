"""ClassMix (Olsson et al., WACV 2021): half of the classes of a source image, pasted onto a target image.

Each image has draws of its own, from its own classes; what counts for nothing is no class.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fasttrain.beton_build.mask_info import IGNORE
from fasttrain.loading.randomness import Operation, uniforms

_VALUES = IGNORE + 1


@dataclass(frozen=True)
class Mixed:
    """Images of a batch with pixels of two others.

    Attributes:
        images: (B, 3, H, W).
        labels: (B, H, W) uint8.
        weights: (B, H, W) float32 of each pixel in the loss.
        pasted: (B, H, W) bool: pixels that are the source's.
    """

    images: Tensor
    labels: Tensor
    weights: Tensor
    pasted: Tensor


def choose_classes(labels: Tensor, seed: int, step: int, first: int = 0) -> Tensor:
    """Half of the classes that each image shows, rounded up.

    Nothing waits for the device: every class gets a number by lot, and of those that are there the lowest are taken.

    Args:
        labels: (B, H, W) uint8, 255 for no class.
        seed, step: of the draws.
        first: number of the first image in the whole batch, over all ranks; draws are keyed by it.

    Returns:
        (B, 256) bool.
    """
    count = len(labels)
    keys = np.repeat(np.arange(first, first + count, dtype=np.uint64), IGNORE)
    operations = np.tile(Operation.CLASS_MIX + np.arange(IGNORE), count)
    lots = torch.from_numpy(uniforms(seed, step, keys, operations)[0].reshape(count, IGNORE))
    there = torch.zeros((count, _VALUES), dtype=torch.bool, device=labels.device)
    there.scatter_(1, labels.flatten(1).long(), True)
    there = there[:, :IGNORE]
    order = torch.where(there, lots.to(labels.device, non_blocking=True), 2.0).argsort(dim=1, stable=True)
    rank = torch.empty_like(order).scatter_(1, order, torch.arange(IGNORE, device=labels.device).expand_as(order))
    wanted = (there.sum(1, keepdim=True) + 1) // 2
    return torch.nn.functional.pad(there & (rank < wanted), (0, 1))


def paste(
    source: Tensor, source_labels: Tensor, target: Tensor, target_labels: Tensor, share: Tensor, chosen: Tensor
) -> Mixed:
    """Pixels of the chosen classes of each source image on the target image of its place in the batch.

    Args:
        source, target: images (B, 3, H, W).
        source_labels: (B, H, W) uint8.
        target_labels: the same, pseudo-labels; 255 beyond an image.
        share: (B,) float32: how much the target's pixels count, each image's own (see
            `fasttrain.training.adaptation.confidence`); the source's count 1.
        chosen: (B, 256) bool, as `choose_classes` gives it.
    """
    pasted = chosen.gather(1, source_labels.flatten(1).long()).view_as(source_labels)
    return Mixed(
        torch.where(pasted[:, None], source, target),
        torch.where(pasted, source_labels, target_labels),
        torch.where(pasted, 1.0, share.float()[:, None, None]),
        pasted,
    )
