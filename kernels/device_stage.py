"""What is left once pixels are decoded: crop or resize, flip, jitter, normalise, cast; and who does it where.

Triton does on a GPU, C++ on a CPU, plain torch where neither is there. `choose` decides. Results agree within rounding:
to one unit in the last place of float16 and bfloat16, to 2e-5 in float32 (after division by the standard deviation),
to one level, at ties, where pixels are rounded.
"""

import warnings
from functools import cache
from typing import Literal

import torch
from torch import Tensor

from fasttrain.kernels import device_stage_native, device_stage_plain
from fasttrain.kernels.pixels import FAST_TYPES, Crops, FlatImages, Geometry, Jitter, Target, check_geometry

Implementation = Literal["triton", "native", "plain"]


def choose(device: torch.device, dtype: torch.dtype = torch.float32) -> Implementation:
    """Which implementation makes images of a type (uint8: that are only resized) of tensors on a device."""
    if dtype not in (*FAST_TYPES, torch.uint8):
        return "plain"
    if device.type == "cuda" and triton_works(device):
        return "triton"
    if device.type == "cpu" and device_stage_native.available():
        return "native"
    return "plain"


@cache
def triton_works(device: torch.device) -> bool:
    """Whether Triton is there (torch for CUDA brings it) and can build a kernel, which takes a C compiler."""
    try:
        from fasttrain.kernels.triton import finish as kernels
    except ImportError:
        return False
    pixel = torch.zeros((1, 1, 1, 3), dtype=torch.uint8, device=device)
    out = torch.empty((1, 1, 1, 3), device=device)
    try:
        with torch.cuda.device_of(out):
            kernels.finish(pixel, Target((1.0,) * 3, (0.0,) * 3, torch.float32), None, None, out)
    except Exception as error:  # of the compiler, the driver or the system; the work can be done without
        reason = str(error).strip().splitlines() or [type(error).__name__]
        warnings.warn(
            f"Triton cannot build kernels for {device} ({reason[0]}), so plain torch prepares the images, only slower",
            stacklevel=2,
        )
        return False
    return True


def finish(
    pixels: Tensor,
    target: Target,
    jitter: Jitter | None = None,
    *,
    out: Tensor | None = None,
    threads: int = 1,
    using: Implementation | None = None,
) -> Tensor:
    """Jitter, normalise and cast a batch.

    Args:
        pixels: (B, H, W, 3) uint8, contiguous.
        out: (B, H, W, 3) of the target's dtype on the same device, to be filled.
        threads: on a CPU.
        using: an implementation that `choose` would not take.

    Returns:
        (B, 3, H, W) in channels-last format.

    Raises:
        ValueError: shapes or types are not these.
    """
    _check_pixels(pixels)
    if jitter is not None and jitter.factors.shape != (len(pixels), 4):
        raise ValueError(f"the jitter of {len(jitter.factors)} samples does not fit a batch of {len(pixels)}")
    return _nchw(_finish(pixels, target, jitter, None, out, threads, using or choose(pixels.device, target.dtype)))


def gather(
    images: Tensor,
    crops: Crops,
    target: Target,
    jitter: Jitter | None = None,
    *,
    threads: int = 1,
    using: Implementation | None = None,
) -> Tensor:
    """Crops of images that lie on the device, jittered, normalised and cast.

    Args:
        images: (N, H, W, 3) uint8, contiguous.
        crops: B windows.

    Returns:
        (B, 3, height, width) in channels-last format.

    Raises:
        ValueError: shapes or types are not these, or a row is none of the images.
    """
    _check_pixels(images)
    crops.check(*images.shape[:3])
    if jitter is not None and jitter.factors.shape != (len(crops.rows), 4):
        raise ValueError(f"the jitter of {len(jitter.factors)} samples does not fit a batch of {len(crops.rows)}")
    return _nchw(_finish(images, target, jitter, crops, None, threads, using or choose(images.device, target.dtype)))


def resample(
    images: FlatImages,
    geometry: Geometry,
    size: int,
    target: Target | None = None,
    jitter: Jitter | None = None,
    *,
    threads: int = 1,
    using: Implementation | None = None,
    beyond: bool = False,
) -> Tensor:
    """Resize boxes of images of various sizes with antialiasing, take windows of them, jitter, normalise and cast.

    With a jitter, pixels are rounded to uint8 before it, as those are that a loader's threads decoded.

    Args:
        beyond: windows may reach beyond their boxes; what they show there is undefined.

    Returns:
        (B, 3, size, size) in channels-last format; without a target (B, size, size, 3) uint8, not jittered.

    Raises:
        ValueError: an image lies outside of its buffer, a box outside of its image, a window outside of its box.
    """
    images.check()
    check_geometry(geometry, images.sizes, size, beyond)
    using = using or choose(images.buffer.device, torch.uint8 if target is None else target.dtype)
    direct = target if jitter is None else None
    if using == "triton":
        from fasttrain.kernels.triton import resample as kernels

        dtype = torch.uint8 if direct is None else direct.dtype
        pixels = torch.empty((len(images.offsets), size, size, 3), dtype=dtype, device=images.buffer.device)
        with torch.cuda.device_of(pixels):  # Triton launches on the current device
            kernels.resample(images, geometry, direct, pixels)
    else:
        pixels = device_stage_plain.resample(images, geometry, size, direct)
    if target is None:
        return pixels
    return _nchw(pixels) if direct is not None else finish(pixels, target, jitter, threads=threads, using=using)


def _finish(
    images: Tensor,
    target: Target,
    jitter: Jitter | None,
    crops: Crops | None,
    out: Tensor | None,
    threads: int,
    using: Implementation,
) -> Tensor:
    """(B, height, width, 3), which is `out` where that is given."""
    count, height, width = images.shape[:3] if crops is None else (len(crops.rows), crops.height, crops.width)
    shape = (count, height, width, 3)
    if out is not None and (out.shape != shape or out.dtype != target.dtype or not out.is_contiguous()):
        raise ValueError(f"out must be a contiguous {shape} tensor of {target.dtype}")
    if using == "plain":
        pixels = images if crops is None else device_stage_plain.crop(images, crops)
        result = device_stage_plain.finish(pixels, target, jitter)
        return result if out is None else out.copy_(result)
    if out is None:
        out = torch.empty(shape, dtype=target.dtype, device=images.device)
    if using == "native":
        pixels = images if crops is None else device_stage_plain.crop(images, crops)
        device_stage_native.finish(pixels, target, jitter, out, threads)
        return out
    from fasttrain.kernels.triton import finish as kernels

    with torch.cuda.device_of(out):  # Triton launches on the current device
        kernels.finish(images, target, jitter, crops, out)
    return out


def _check_pixels(pixels: Tensor) -> None:
    if pixels.dtype != torch.uint8 or pixels.dim() != 4 or pixels.shape[3] != 3 or not pixels.is_contiguous():
        raise ValueError(
            f"pixels come as contiguous (B, H, W, 3) uint8, not as {tuple(pixels.shape)} of {pixels.dtype}"
        )


def _nchw(images: Tensor) -> Tensor:
    return images.permute(0, 3, 1, 2)  # an NHWC tensor seen as NCHW is what channels-last means
