"""Reading, jitter, normalisation and storing of pixels: parts of kernels, values in registers."""

import triton
import triton.language as tl


@triton.jit
def load_rgb(pointer, step, mask):
    """Red, green and blue of pixels as float32, 0 to 255, 0 where `mask` is off; channels lie `step` bytes apart."""
    red = tl.load(pointer, mask=mask, other=0).to(tl.float32)
    green = tl.load(pointer + step, mask=mask, other=0).to(tl.float32)
    blue = tl.load(pointer + 2 * step, mask=mask, other=0).to(tl.float32)
    return red, green, blue


@triton.jit
def load_unit_rgb(pointer, mask):
    """The same of channels side by side, 0 to 1."""
    red, green, blue = load_rgb(pointer, 1, mask)
    return red * (1 / 255), green * (1 / 255), blue * (1 / 255)


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


@triton.jit
def store_by_channel(pointer, value, channel, s0, s1, s2, h0, h1, h2, mask):
    """Values of which each belongs to a channel of its own, with that one's scale and shift."""
    scale = tl.where(channel == 0, s0, tl.where(channel == 1, s1, s2))
    shift = tl.where(channel == 0, h0, tl.where(channel == 1, h1, h2))
    store(pointer, value, scale, shift, mask)
