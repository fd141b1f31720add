"""Jitter and normalisation of pixels that were just read: parts of kernels, values in registers."""

import triton
import triton.language as tl


@triton.jit
def luma(red, green, blue):
    return red * 0.2989 + green * 0.587 + blue * 0.114


@triton.jit
def _blend(value, other, factor):
    return tl.minimum(tl.maximum(value * factor + other * (1 - factor), 0.0), 1.0)


@triton.jit
def _rotated(high, spread, hue, n: tl.constexpr):
    k = hue + n
    k -= 6 * tl.floor(k * (1 / 6))
    return high - spread * tl.minimum(tl.maximum(tl.minimum(k, 4 - k), 0.0), 1.0)


@triton.jit
def _rotate_hue(red, green, blue, shift):
    high = tl.maximum(tl.maximum(red, green), blue)
    spread = high - tl.minimum(tl.minimum(red, green), blue)
    inverse = 1 / tl.where(spread == 0, 1.0, spread)
    sector = tl.where(
        high == red,
        (green - blue) * inverse,
        tl.where(high == green, 2 + (blue - red) * inverse, 4 + (red - green) * inverse),
    )
    hue = sector + shift * 6
    return _rotated(high, spread, hue, 5), _rotated(high, spread, hue, 3), _rotated(high, spread, hue, 1)


@triton.jit
def apply_operation(operation, factor, mean, red, green, blue):
    """One operation of `fasttrain.kernels.device_stage_plain.apply_jitter`; the number behind the last does nothing.

    All pixels of a program belong to one sample, so that these branches never diverge.
    """
    if operation == 0:
        red, green, blue = _blend(red, 0.0, factor), _blend(green, 0.0, factor), _blend(blue, 0.0, factor)
    elif operation == 1:
        red, green, blue = _blend(red, mean, factor), _blend(green, mean, factor), _blend(blue, mean, factor)
    elif operation == 2:
        grey = luma(red, green, blue)
        red, green, blue = _blend(red, grey, factor), _blend(green, grey, factor), _blend(blue, grey, factor)
    elif operation == 3:
        red, green, blue = _rotate_hue(red, green, blue, factor)
    return red, green, blue


@triton.jit
def store(pointer, value, scale, shift, mask):
    tl.store(pointer, (value * scale + shift).to(pointer.dtype.element_ty), mask=mask)
