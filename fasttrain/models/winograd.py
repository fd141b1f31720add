"""Convolutions of 3 x 3 that take Winograd's way on a CPU (see `fasttrain.kernels.winograd`), and torch's elsewhere."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fasttrain.kernels import winograd
from fasttrain.models.native_tensors import by_pixels, like, pixels, takes_native, torch_gradients, values


class Passes(NamedTuple):
    """Which passes of a convolution go by Winograd's way: forward, the gradient by the input, that by the weights."""

    forward: bool = True
    input: bool = True
    weight: bool = True


class WinogradConv2d(nn.Conv2d):
    """A convolution of 3 x 3 with stride 1, padding 1 and one group; parameters and their names are `nn.Conv2d`'s.

    Dense float32 tensors on a CPU take the passes that `passes` names by Winograd's way. All else, autocast, and
    what records, compiles or transforms the model, takes torch's own convolution.
    """

    passes = Passes()

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if not _fits(input, weight):
            return super()._conv_forward(input, weight, bias)
        out: Tensor = _Convolution.apply(input, weight, bias, self.passes)
        return out


def is_suitable(module: nn.Module) -> bool:
    """Whether a module is a plain convolution whose place a `WinogradConv2d` can take."""
    return (
        type(module) is nn.Conv2d
        and (module.kernel_size, module.stride, module.dilation) == ((3, 3), (1, 1), (1, 1))
        and (module.padding, module.padding_mode, module.groups) == ((1, 1), "zeros", 1)
    )


def use_winograd(model: nn.Module, chosen: Mapping[str, Passes]) -> None:
    """Turn convolutions of `model` into `WinogradConv2d`, in place: parameters, hooks and names stay.

    Args:
        chosen: passes by names of suitable modules; names that the model has not are left out.
    """
    for name, module in model.named_modules():
        if name in chosen and is_suitable(module):
            module.__class__ = WinogradConv2d
            module.passes = chosen[name]


def winograd_passes(model: nn.Module) -> dict[str, Passes]:
    """The convolutions of a model that take Winograd's way, by name."""
    return {name: module.passes for name, module in model.named_modules() if isinstance(module, WinogradConv2d)}


def _fits(images: Tensor, weight: Tensor) -> bool:
    return winograd.native_there() and takes_native(images, weight)


def convolve(images: Tensor, weight: Tensor) -> Tensor:
    """(N, K, H, W) channels-last of images (N, C, H, W) and a weight (K, C, 3, 3) that `WinogradConv2d` takes."""
    images = by_pixels(images)
    out = like(images, len(weight))
    winograd.convolve(pixels(images), values(weight), out=pixels(out), threads=torch.get_num_threads())
    return out


def gradient_by_images(gradient: Tensor, weight: Tensor) -> Tensor:
    """(N, C, H, W) channels-last, from the gradient by the outputs (N, K, H, W)."""
    gradient = by_pixels(gradient)
    out = like(gradient, weight.shape[1])
    winograd.input_gradient(pixels(gradient), values(weight), out=pixels(out), threads=torch.get_num_threads())
    return out


def gradient_by_weight(gradient: Tensor, images: Tensor, weight: Tensor) -> Tensor:
    """(K, C, 3, 3) in the layout of the weight, from the gradient by the outputs and the images."""
    gradient, images, out = by_pixels(gradient), by_pixels(images), torch.empty_like(weight)
    winograd.weight_gradient(pixels(images), pixels(gradient), out=values(out), threads=torch.get_num_threads())
    return out


def direct_gradients(
    gradient: Tensor, images: Tensor, weight: Tensor, wanted: Sequence[bool]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Torch's gradients by images, weight and bias, each None unless `wanted`."""
    return torch_gradients(gradient, images, weight, (1, 1), (1, 1), wanted)


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, bias: Tensor | None, passes: Passes) -> Tensor:
        ctx.save_for_backward(images, weight)
        ctx.passes = passes
        if not passes.forward:
            return F.conv2d(images, weight, bias, padding=1)
        out = convolve(images, weight)
        return out if bias is None else out.add_(bias[:, None, None])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        images, weight = ctx.saved_tensors
        wanted = ctx.needs_input_grad[:3]
        if torch.is_grad_enabled() or not _fits(gradient, weight):  # the gradient is to be derived again
            return (*direct_gradients(gradient, images, weight, wanted), None)
        own = (wanted[0] and ctx.passes.input, wanted[1] and ctx.passes.weight, False)
        rest = [asked and not mine for asked, mine in zip(wanted, own, strict=True)]
        by_images, by_weight, by_bias = (
            direct_gradients(gradient, images, weight, rest) if any(rest) else (None, None, None)
        )
        if own[0]:
            by_images = gradient_by_images(gradient, weight)
        if own[1]:
            by_weight = gradient_by_weight(gradient, images, weight)
        return by_images, by_weight, by_bias, None
