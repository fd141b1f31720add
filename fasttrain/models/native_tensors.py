"""Tensors as the native kernels for training on a CPU take them."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def takes_native(images: Tensor, weight: Tensor) -> bool:
    """Whether a convolution of these may go by a kernel that is not torch's.

    They are dense float32 tensors on a CPU, and nothing records, compiles or transforms the model.
    """
    return (
        not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()  # before anything that it would record
        and type(images) is Tensor
        and images.device.type == weight.device.type == "cpu"
        and images.dtype == weight.dtype == torch.float32
        and images.layout == torch.strided
        and images.dim() == 4
        and images.numel() > 0
        and not torch.is_autocast_enabled("cpu")
        and not torch._C._are_functorch_transforms_active()
    )


def by_pixels(images: Tensor) -> Tensor:
    """Images (N, C, H, W) channels-last, where they are not yet."""
    return images.contiguous(memory_format=torch.channels_last)


def like(images: Tensor, channels: int) -> Tensor:
    """Memory for images (N, channels, H, W), channels-last."""
    shape = (images.shape[0], channels, *images.shape[2:])
    return torch.empty(shape, dtype=images.dtype, memory_format=torch.channels_last)


def pixels(images: Tensor) -> Any:
    """(N, H, W, C) of a channels-last (N, C, H, W), the same memory."""
    return values(images).transpose(0, 2, 3, 1)


def values(tensor: Tensor) -> Any:
    """A tensor as an array, the same memory."""
    return tensor.detach().numpy()


def torch_gradients(
    gradient: Tensor,
    images: Tensor,
    weight: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    wanted: Sequence[bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """What torch makes of the same: gradients by images, weight and bias, each None unless `wanted`."""
    groups = images.shape[1] // weight.shape[1]
    found = torch.ops.aten.convolution_backward(
        gradient, images, weight, [len(weight)], stride, padding, [1, 1], False, [0, 0], groups, list(wanted)
    )
    by_images, by_weight, by_bias = (one if asked else None for one, asked in zip(found, wanted, strict=True))
    return by_images, by_weight, by_bias
