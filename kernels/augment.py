"""Augmentation of batches of bytes: geometry, colours, noise, erasing, corruptions; and who does it where.

C++ does on a CPU, Triton on a GPU (blur, grid shuffle, mixtures, corruptions and masks go over the CPU), NumPy where
neither is there. `choose` decides. An image's operations are done in
their order, but in as few passes as that allows:

* Affine operations that follow each other are composed into one resample. A pixel shows the fill colour if its look
  leaves the frame after any one of them, as if they were done one by one; only the interpolation is done once.
* Operations on single values (brightness, contrast, posterize, solarize, invert, equalize, …) that follow each other
  are composed into one table of 256 values a channel, exactly; histograms are taken through that table. Where it comes
  last, it is composed with the normalisation, too.
* An affine operation and a table keep their order, for the fill colour and the interpolation do not commute with
  tables.

Results agree between implementations to one level (a few of a thousand values, where interpolation ends within rounding
errors of a whole number), and are the same bytes on all instruction sets of a CPU and with any number of threads.
"""

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from fasttrain.kernels import augment_plain
from fasttrain.kernels.augment_program import Program, native_program
from fasttrain.kernels.device_stage import triton_works
from fasttrain.kernels.pixels import FAST_TYPES, Target

try:
    from fasttrain.kernels import _native
except ImportError:  # installed without a compiler or libjpeg's headers
    _native = None  # type: ignore[assignment]

Implementation = Literal["triton", "native", "plain"]
_NAMES = {torch.uint8: "uint8", torch.float32: "float32", torch.float16: "float16", torch.bfloat16: "bfloat16"}


def choose(device: torch.device, dtype: torch.dtype = torch.uint8) -> Implementation:
    """Which implementation augments batches on a device into a type."""
    if device.type == "cpu" and _native is not None and dtype in (torch.uint8, *FAST_TYPES):
        return "native"
    if device.type == "cuda" and triton_works(device):
        return "triton"
    return "plain"


def augment(
    pixels: Tensor,
    program: Program,
    target: Target | None = None,
    *,
    masks: Tensor | None = None,
    out: Tensor | None = None,
    out_masks: Tensor | None = None,
    threads: int = 1,
    using: Implementation | None = None,
) -> Tensor:
    """Augment a batch.

    Args:
        pixels: (B, H, W, 3) uint8, contiguous.
        program: of B images.
        target: normalise and cast as well.
        masks: (B, H, W) uint8, contiguous, that are moved as the pixels are, by nearest neighbours.
        out: (B, H, W, 3) uint8, or of the target's dtype, to be filled; may be `pixels`.
        out_masks: where the masks go; may be `masks`.
        threads: on a CPU.
        using: an implementation that `choose` would not take.

    Returns:
        (B, H, W, 3) uint8; with a target (B, 3, H, W) in channels-last format.

    Raises:
        ValueError: shapes or types are not these, or the program cannot be carried out.
    """
    dtype = torch.uint8 if target is None else target.dtype
    if pixels.dtype != torch.uint8 or pixels.dim() != 4 or pixels.shape[3] != 3 or not pixels.is_contiguous():
        raise ValueError(f"pixels come as contiguous (B, H, W, 3) uint8, not {tuple(pixels.shape)} of {pixels.dtype}")
    program.check(len(pixels))
    if out is None:
        out = torch.empty(pixels.shape, dtype=dtype, device=pixels.device)
    elif out.shape != pixels.shape or out.dtype != dtype or not out.is_contiguous():
        raise ValueError(f"out must be a contiguous {tuple(pixels.shape)} tensor of {dtype}")
    if masks is not None:
        if masks.dtype != torch.uint8 or masks.shape != pixels.shape[:3] or not masks.is_contiguous():
            raise ValueError("masks come as contiguous (B, H, W) uint8, of the size of the images")
        if out_masks is None:
            raise ValueError("say where the masks go: out_masks")
    using = using or choose(pixels.device, dtype)
    if using == "triton" and (masks is not None or not _on_gpu(program)):
        return _over_the_host(pixels, program, target, masks, out, out_masks, threads)
    if using == "triton":
        _augment_triton(pixels, program, target, out)
    elif using == "native":
        _augment_native(pixels, program, target, masks, out, out_masks, threads)
    else:
        _augment_plain(pixels, program, target, masks, out, out_masks)
    return out if target is None else out.permute(0, 3, 1, 2)


def _augment_native(
    pixels: Tensor,
    program: Program,
    target: Target | None,
    masks: Tensor | None,
    out: Tensor,
    out_masks: Tensor | None,
    threads: int,
) -> None:
    half = out.dtype in (torch.float16, torch.bfloat16)
    _native.augment(
        pixels=pixels.numpy(),
        out=out.view(torch.int16).numpy() if half else out.numpy(),
        dtype=_NAMES[out.dtype],
        scale=(1.0, 1.0, 1.0) if target is None else target.scale,
        shift=(0.0, 0.0, 0.0) if target is None else target.shift,
        program=native_program(program),
        masks=None if masks is None else masks.numpy(),
        out_masks=None if out_masks is None else out_masks.numpy(),
        threads=threads,
    )


def _on_gpu(program: Program) -> bool:
    from fasttrain.kernels.triton import augment as kernels

    return kernels.can_do(program)


def _augment_triton(pixels: Tensor, program: Program, target: Target | None, out: Tensor) -> None:
    from fasttrain.kernels import device_stage
    from fasttrain.kernels.triton import augment as kernels

    with torch.cuda.device_of(pixels):  # Triton launches on the current device
        if target is None:
            return kernels.run(pixels, program, out)
        changed = torch.empty_like(pixels)
        kernels.run(pixels, program, changed)
    device_stage.finish(changed, target, out=out, using="triton")


def _over_the_host(
    pixels: Tensor,
    program: Program,
    target: Target | None,
    masks: Tensor | None,
    out: Tensor,
    out_masks: Tensor | None,
    threads: int,
) -> Tensor:
    """What the GPU has no kernel for is done by the CPU, which takes the copies and the wait for them."""
    moved = None if masks is None else masks.cpu()
    result = augment(pixels.cpu(), program, target, masks=moved, out_masks=moved, threads=threads)
    if moved is not None and out_masks is not None:
        out_masks.copy_(moved)
    out.copy_(result if target is None else result.permute(0, 2, 3, 1))
    return out if target is None else out.permute(0, 3, 1, 2)


def _augment_plain(
    pixels: Tensor,
    program: Program,
    target: Target | None,
    masks: Tensor | None,
    out: Tensor,
    out_masks: Tensor | None,
) -> None:
    images, marks = pixels.cpu().numpy(), None if masks is None else masks.cpu().numpy()
    for number in range(len(images)):
        mask = None if marks is None else marks[number]
        image, mask = augment_plain.augment_image(images[number], mask, program, number)
        values = torch.from_numpy(np.require(image, requirements=["C", "W"]))
        if target is not None:
            values = values.float() * torch.tensor(target.scale) + torch.tensor(target.shift)
        out[number] = values.to(out.device, out.dtype)
        if out_masks is not None and mask is not None:
            out_masks[number] = torch.from_numpy(mask).to(out_masks.device)
