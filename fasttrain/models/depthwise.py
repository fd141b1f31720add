"""Depthwise convolutions with the gradients of `fasttrain.kernels.depthwise` on a CPU; forwards they are torch's."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import pad_same
from timm.layers.conv2d_same import Conv2dSame
from torch import Tensor, nn

from fasttrain.kernels import depthwise
from fasttrain.models.native_tensors import by_pixels, pixels, takes_native, torch_gradients, values

_Pair = tuple[int, int]


class DepthwiseConv2d(nn.Conv2d):
    """A convolution with a filter for each channel; parameters and their names are `nn.Conv2d`'s.

    Dense, channels-last float32 tensors on a CPU get their gradients from our kernel. All else, autocast, and what
    records, compiles or transforms the model, takes torch's own.
    """

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if not _fits(input, weight):
            return super()._conv_forward(input, weight, bias)
        out: Tensor = _Convolution.apply(input, weight, bias, self.stride, self.padding)
        return out


class DepthwiseConv2dSame(Conv2dSame):
    """The same of timm's convolution that pads as TensorFlow does."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H', W') of (N, C, H, W)."""
        if not _fits(x, self.weight):
            whole: Tensor = super().forward(x)
            return whole
        padded = pad_same(x, self.weight.shape[-2:], self.stride)
        out: Tensor = _Convolution.apply(padded, self.weight, self.bias, self.stride, (0, 0))
        return out


_KINDS: dict[type[nn.Module], type[nn.Conv2d]] = {nn.Conv2d: DepthwiseConv2d, Conv2dSame: DepthwiseConv2dSame}


def use_depthwise(model: nn.Module) -> int:
    """Turn a model's depthwise convolutions into these, in place: parameters, hooks and names stay.

    Returns:
        How many there are.
    """
    suitable = [module for module in model.modules() if is_suitable(module)]
    for module in suitable:
        module.__class__ = _KINDS[type(module)]
    return len(suitable)


def is_suitable(module: nn.Module) -> bool:
    """Whether a module is a plain depthwise convolution whose place one of these can take."""
    return (
        type(module) in _KINDS
        and isinstance(module, nn.Conv2d)
        and module.groups == module.in_channels == module.out_channels > 1
        and module.dilation == (1, 1)
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
        and all(zeros < side for zeros, side in zip(module.padding, module.kernel_size, strict=True))
    )


def _fits(images: Tensor, weight: Tensor) -> bool:
    return (
        depthwise.native_gains()
        and takes_native(images, weight)
        and images.is_contiguous(memory_format=torch.channels_last)
    )


def gradients(
    gradient: Tensor, images: Tensor, weight: Tensor, stride: _Pair, padding: _Pair, wanted: Sequence[bool]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """By images (N, C, H, W) channels-last, weight (C, 1, height, width) and bias (C), each None unless `wanted`."""
    by_images = torch.empty_like(images) if wanted[0] else None
    factors = weight.detach()[:, 0].permute(1, 2, 0).contiguous()
    by_weight = torch.empty_like(factors) if wanted[1] else None
    depthwise.gradients(
        pixels(images),
        pixels(by_pixels(gradient)),
        values(factors),
        stride=stride,
        padding=padding,
        out=depthwise.Gradients(
            None if by_images is None else pixels(by_images), None if by_weight is None else values(by_weight)
        ),
        threads=torch.get_num_threads(),
    )
    by_bias = gradient.sum((0, 2, 3)) if wanted[2] else None
    return by_images, None if by_weight is None else by_weight.permute(2, 0, 1)[:, None].contiguous(), by_bias


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, bias: Tensor | None, stride: _Pair, padding: _Pair) -> Tensor:
        ctx.save_for_backward(images, weight)
        ctx.stride, ctx.padding = stride, padding
        return F.conv2d(images, weight, bias, stride, padding, groups=len(weight))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        images, weight = ctx.saved_tensors
        wanted = ctx.needs_input_grad[:3]
        if torch.is_grad_enabled() or not _fits(images, weight):  # the gradient is to be derived again
            return (*torch_gradients(gradient, images, weight, ctx.stride, ctx.padding, wanted), None, None)
        return (*gradients(gradient, images, weight, ctx.stride, ctx.padding, wanted), None, None)
