"""Mixup of a batch with itself in reverse order, in place: on a CPU in C++, one pass over the memory."""

import torch
from torch import Tensor

try:
    from fasttrain.kernels import _native
except ImportError:  # installed without a compiler or libjpeg's headers
    _native = None  # type: ignore[assignment]


def mix_reversed(images: Tensor, shares: Tensor, threads: int | None = None) -> Tensor:
    """``share * image + (1 - share) * image[B - 1 - i]`` for each i.

    Args:
        images: (B, …) of a floating-point type; overwritten.
        shares: (B,) float32.
        threads: on a CPU; by default as many as torch uses.

    Returns:
        `images`.
    """
    plain = images.permute(0, 2, 3, 1) if images.dim() == 4 and not images.is_contiguous() else images
    if _native is not None and images.device.type == "cpu" and images.dtype == torch.float32 and plain.is_contiguous():
        _native.mix_reversed(plain.numpy(), shares.numpy(), torch.get_num_threads() if threads is None else threads)
        return images
    half = (len(images) + 1) // 2  # the first ones; an image in the middle is its own partner
    weights = shares.to(images.dtype).view(-1, *([1] * (images.dim() - 1)))
    first, last = images[:half], images[len(images) - half :].flip(0)
    mixed = torch.lerp(last, first, weights[:half])
    images[len(images) - half :] = torch.lerp(first, last, weights[len(images) - half :].flip(0)).flip(0)
    images[:half] = mixed
    return images
