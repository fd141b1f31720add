"""Batches in which each image has a partner, and their amplitudes exchanged in part."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from fasttrain.base.process import rank
from fasttrain.kernels.mixing import mix_amplitudes
from fasttrain.loading.batch import Batch, MaskedBatch
from fasttrain.loading.randomness import Operation, uniforms
from fasttrain.training.adaptation.pairs import PairedLoader


class PartneredLoader(PairedLoader):
    """Two loaders of the same data whose batches come as one: B samples of the first, then B of the second. The partner
    of a sample is the one B places on, or back."""

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]  # one batch of both
        for source, target in zip(self.source, self.target, strict=True):
            yield joined(source, target)


def joined(first: Batch, second: Batch) -> Batch:
    """One batch of two of the same kind."""
    both = Batch(*(torch.cat(pair) for pair in zip(first, second, strict=True)))
    if isinstance(first, MaskedBatch) and isinstance(second, MaskedBatch):
        return MaskedBatch(both.images, both.labels, both.ids, both.valid, torch.cat([first.masks, second.masks]))
    return both


def with_partners_amplitudes(
    batch: Batch, ratio: float, mean: Sequence[float], std: Sequence[float], seed: int, step: int
) -> Tensor:
    """The images of a `PartneredLoader`'s batch, low frequencies' amplitudes moved towards their partners' by a uniform
    share of each pair; phases stay (`fasttrain.kernels.mixing.mix_amplitudes`). Both of a pair change; none does where
    one of the two is masked.

    Args:
        ratio: sides of the box of low frequencies, of the whole spectrum's.
        mean, std: that the images were normalised by, of values 0 to 1.
        seed, step: of the draws, which depend on these and on the pair's place in the batch over all ranks.

    Returns:
        (2 B, 3, H, W), normalised, a tensor of its own.
    """
    images, count = batch.images, len(batch.labels)
    pairs = -(-count // 2)  # a part of a batch, that is tried for its size, may be odd
    keys = rank() * pairs + np.arange(pairs)
    drawn = uniforms(seed, step, keys, Operation.PARTNER_AMPLITUDES)[0].astype(np.float32)
    share = torch.from_numpy(drawn).repeat(2)[:count].to(images.device, non_blocking=True)
    partner = torch.arange(count, device=images.device).roll(-pairs)
    together = batch.valid & batch.valid[partner]
    shift, scale = (
        torch.tensor(list(values)).view(1, 3, 1, 1).to(images.device, non_blocking=True) for values in (mean, std)
    )
    colours = (images.float() * scale + shift).clamp(0, 1)
    moved = mix_amplitudes(colours, partner, share, ratio)
    return torch.where(together.view(-1, 1, 1, 1), ((moved - shift) / scale).to(images.dtype), images)
