"""The kernels of the device stage in plain torch, on any device: what the fast ones are compared with."""

import numpy as np
import torch
from torch import Tensor

from fasttrain.kernels.pixels import LUMA, NEUTRAL, Crops, FlatImages, Geometry, Jitter, Target


def finish(pixels: Tensor, target: Target, jitter: Jitter | None = None) -> Tensor:
    """Jitter, normalise and cast (B, H, W, 3) uint8 into the same shape."""
    images = pixels.to(torch.float32)
    if jitter is not None:
        images = apply_jitter(images.div_(255), jitter).mul_(255)
    scale, shift = (upload(np.array(values, np.float32), pixels.device) for values in (target.scale, target.shift))
    return images.mul_(scale).add_(shift).to(target.dtype)


def crop(images: Tensor, crops: Crops) -> Tensor:
    """Windows (B, height, width, 3) uint8 of (N, H, W, 3) uint8."""
    height, width = images.shape[1:3]
    y, in_y = _positions(crops.corners[:, 1], crops.height, height, crops.vflip, crops.padding)
    x, in_x = _positions(crops.corners[:, 0], crops.width, width, crops.hflip, crops.padding)
    row, line, column = (upload(numbers, images.device) for numbers in (crops.rows, y, x))
    windows = images[row[:, None, None], line[:, :, None], column[:, None, :]]
    if crops.padding == "black":
        inside = upload(in_y, images.device)[:, :, None, None] & upload(in_x, images.device)[:, None, :, None]
        windows = windows * inside
    return windows


def _positions(
    start: np.ndarray, count: int, limit: int, mirrored: np.ndarray, padding: str
) -> tuple[np.ndarray, np.ndarray]:
    """Source positions (B, count) on one axis, and which of them were inside of the image to begin with."""
    steps = np.arange(count)
    wanted = start[:, None] + np.where(mirrored[:, None], steps[::-1], steps)
    inside = (wanted >= 0) & (wanted < limit)
    if padding == "reflect":
        wanted = np.abs(wanted)
        wanted = np.where(wanted >= limit, 2 * (limit - 1) - wanted, wanted)
    return np.clip(wanted, 0, limit - 1), inside


def resample(images: FlatImages, geometry: Geometry, size: int, target: Target | None) -> Tensor:
    """Resize boxes, take windows of (B, size, size, 3): uint8, rounded, without a target, normalised with one."""
    device = images.buffer.device
    values = torch.empty((len(images.offsets), size, size, 3), device=device)
    for row, (width, height) in enumerate(images.sizes.tolist()):
        start = int(images.offsets[row])
        pixels = images.buffer[start : start + 3 * width * height]
        image = pixels.view(3, height, width).permute(1, 2, 0) if images.planar else pixels.view(height, width, 3)
        left, top, box_w, box_h = geometry.boxes[row].tolist()
        weights = [
            upload(axis_weights(length, int(resized), int(window), size, geometry.filter, bool(mirrored)), device)
            for length, resized, window, mirrored in zip(
                (box_w, box_h),
                geometry.resized[row],
                geometry.windows[row],
                (geometry.hflip[row], geometry.vflip[row]),
                strict=True,
            )
        ]
        box = image[top : top + box_h, left : left + box_w].to(torch.float64)
        values[row] = torch.einsum("yh,hwc,xw->yxc", weights[1], box, weights[0]).clamp(0, 255)
    if target is None:
        return (values + 0.5).to(torch.uint8)
    scale, shift = (upload(np.array(numbers, np.float32), device) for numbers in (target.scale, target.shift))
    return values.mul_(scale).add_(shift).to(target.dtype)


def axis_weights(length: int, resized: int, window: int, outputs: int, filter_: str, mirrored: bool) -> np.ndarray:
    """Weights (outputs, length) float64 of one axis: `length` pixels become `resized`, of which some are wanted.

    These are Pillow's: the filter (triangle, or Keys' cubic with a = -0.5) is stretched by the reduction, which is the
    antialiasing, and sampled at the pixels' centres; its values at the pixels that there are add up to 1.
    """
    scale = length / resized
    stretch = max(scale, 1.0)
    centres = (window + np.arange(outputs) + 0.5) * scale
    weights = _FILTERS[filter_](np.abs(np.arange(length) + 0.5 - centres[:, None]) / stretch)
    sums = weights.sum(1, keepdims=True)
    weights /= np.where(sums, sums, 1)  # outputs far beyond the box have none
    return weights[::-1].copy() if mirrored else weights


def _triangle(x: np.ndarray) -> np.ndarray:
    return np.maximum(0.0, 1 - x)


def _cubic(x: np.ndarray) -> np.ndarray:
    """Keys, "Cubic convolution interpolation for digital image processing", 1981, with a = -0.5."""
    a = -0.5
    near, far = ((a + 2) * x - (a + 3)) * x * x + 1, (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


_FILTERS = {"bilinear": _triangle, "bicubic": _cubic}


def upload(array: np.ndarray, device: torch.device) -> Tensor:
    """`array` on `device`, without waiting for it."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


# --- colour ----------------------------------------------------------------------------------------------------------


def apply_jitter(images: Tensor, jitter: Jitter) -> Tensor:
    """Colour jitter with each sample's own factors and order of operations, as torchvision defines them.

    Args:
        images: (B, H, W, 3) float32 in 0–1; changed in place.
        jitter: factors and order of the batch.
    """
    operations = (_brightness, _contrast, _saturation, _hue)
    factors = upload(jitter.factors, images.device)
    for turn in range(len(operations)):
        for number, operation in enumerate(operations):
            chosen = np.flatnonzero((jitter.order[:, turn] == number) & (jitter.factors[:, number] != NEUTRAL[number]))
            if len(chosen):
                index = upload(chosen, images.device)
                images[index] = operation(images[index], factors[index, number, None, None, None])
    return images


def _blend(images: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    return (images * factor + other * (1 - factor)).clamp_(0, 1)


def _grey(images: Tensor) -> Tensor:
    """Luma (B, H, W, 1)."""
    red, green, blue = images.split(1, -1)
    return red * LUMA[0] + green * LUMA[1] + blue * LUMA[2]


def _brightness(images: Tensor, factor: Tensor) -> Tensor:
    return (images * factor).clamp_(0, 1)


def _contrast(images: Tensor, factor: Tensor) -> Tensor:
    return _blend(images, _grey(images).mean((1, 2, 3), keepdim=True), factor)


def _saturation(images: Tensor, factor: Tensor) -> Tensor:
    return _blend(images, _grey(images), factor)


def _hue(images: Tensor, shift: Tensor) -> Tensor:
    """Rotate the hue by `shift` turns, through HSV (Smith, "Color gamut transform pairs", SIGGRAPH 1978)."""
    high, low = images.amax(-1, keepdim=True), images.amin(-1, keepdim=True)
    spread = high - low
    safe = torch.where(spread == 0, 1.0, spread)
    red, green, blue = images.split(1, -1)
    sector = torch.where(
        high == red,
        (green - blue) / safe,
        torch.where(high == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    hue = sector + shift * 6
    # Channel value = high - spread * clamp(min(k, 4 - k), 0, 1) with k = (n + hue in sixths) mod 6 and n = 5, 3, 1.
    k = torch.cat([(hue + n).remainder_(6) for n in (5, 3, 1)], -1)
    return high - spread * torch.minimum(k, 4 - k).clamp_(0, 1)
