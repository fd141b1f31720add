"""Augmentation in plain NumPy, image by image: what the fast implementations are compared with."""

import math
from collections.abc import Callable

import numpy as np

from fasttrain.kernels.augment_program import Op, Program, Style
from fasttrain.kernels.augment_random import normals, random_bits

Image = np.ndarray  # (H, W, 3) uint8
Mask = np.ndarray | None  # (H, W) uint8
_ROUNDING = 1 / 1024  # what interpolated values are raised by, so that whole ones stay what they are


def augment_image(pixels: Image, mask: Mask, program: Program, number: int) -> tuple[Image, Mask]:
    """Carry the operations of image `number` of a program out."""
    state = _State(pixels.copy(), None if mask is None else mask.copy(), program.style, int(program.seeds[number]))
    for step, code in enumerate(program.operations[number].tolist()):
        state.apply(Op(code), program.arguments[number, step].astype(np.float64).tolist(), step << 8)
    state.flush()
    return state.pixels, state.mask


def augment_mask(mask: np.ndarray, program: Program, number: int, erases: bool) -> np.ndarray:
    """What the operations of image `number` of a program do to its mask, (H, W) uint8, by itself.

    Args:
        erases: what is erased of the image gets the fill value of masks.
    """
    blank = np.zeros((*mask.shape, 3), np.uint8)  # stands for the image, which geometry does not depend on
    state = _State(blank, mask.copy(), program.style, int(program.seeds[number]))
    mixing = False
    for step, code in enumerate(program.operations[number].tolist()):
        op, arguments = Op(code), program.arguments[number, step].astype(np.float64).tolist()
        mixing &= op != Op.MIX_END
        if mixing or op == Op.NOTHING:
            continue
        if op in (Op.AFFINE, Op.GRID_SHUFFLE, Op.ELASTIC):
            state.apply(op, arguments, step << 8)
            continue
        state.flush()
        mixing = op == Op.MIX_BEGIN
        if op == Op.ERASE and erases:
            top, left, tall, wide = (int(value) for value in arguments[:4])
            assert state.mask is not None
            state.mask[max(top, 0) : max(top + tall, 0), max(left, 0) : max(left + wide, 0)] = program.style.mask_fill
    state.flush()
    assert state.mask is not None
    return state.mask


class _State:
    """An image on its way; affine operations wait for others to be composed with."""

    def __init__(self, pixels: Image, mask: Mask, style: Style, seed: int) -> None:
        self.pixels, self.mask, self.style, self.seed = pixels, mask, style, seed
        self.pending: list[np.ndarray] = []  # (2, 3) matrices
        self.origin: tuple[Image, Mask] = (pixels, mask)
        self.mixed = np.zeros(0)

    def apply(self, op: Op, arguments: list[float], stream: int) -> None:
        if op == Op.NOTHING:
            return
        if op == Op.AFFINE:
            self.pending.append(np.array(arguments[:6]).reshape(2, 3))
            return
        self.flush()
        if op in _POINTWISE:
            self.pixels = _POINTWISE[op](self.pixels, arguments)
        elif op == Op.NOISE:
            noise = normals(self.seed, stream, self.pixels.size).reshape(self.pixels.shape) * arguments[0]
            self.pixels = _rounded(self.pixels + noise)
        elif op == Op.ERASE:
            self.pixels = _erase(self.pixels, arguments, self.style, self.seed, stream)
        elif op == Op.GRID_SHUFFLE:
            order = np.argsort(random_bits(self.seed, stream, int(arguments[0]) ** 2), kind="stable")
            self.pixels = _shuffled(self.pixels, int(arguments[0]), order)
            self.mask = None if self.mask is None else _shuffled(self.mask, int(arguments[0]), order)
        elif op in (Op.MIX_BEGIN, Op.MIX_CHAIN, Op.MIX_END):
            self._mix(op, arguments[0])
        else:
            from fasttrain.kernels.augment_effects import apply_effect

            self.pixels, self.mask = apply_effect(op, self.pixels, self.mask, arguments, self.seed, stream)

    def _mix(self, op: Op, share: float) -> None:
        if op == Op.MIX_BEGIN:
            self.origin, self.mixed = (self.pixels, self.mask), np.zeros(self.pixels.shape, np.float32)
            self.mask = None  # a mixture shows several places at once; its mask is that of the image before
        elif op == Op.MIX_CHAIN:
            self.mixed += np.float32(share) * self.pixels
            self.pixels = self.origin[0]
        else:
            mixed = self.mixed.clip(0, 255).astype(np.uint8)
            self.pixels, self.mask = _blend(mixed, self.origin[0], share), self.origin[1]

    def flush(self) -> None:
        """Carry the affine operations that wait out, in one resample."""
        if not self.pending:
            return
        matrices, self.pending = self.pending, []
        height, width = self.pixels.shape[:2]
        y, x = np.mgrid[0:height, 0:width] + 0.5
        shown = np.ones((height, width), bool)
        for matrix in reversed(matrices):
            x, y = (row[0] * x + row[1] * y + row[2] for row in matrix)
            shown &= (x >= 0) & (x < width) & (y >= 0) & (y < height)
        look = _bilinear if self.style.bilinear else _nearest
        fill = np.array(self.style.fill, np.uint8)
        self.pixels = np.where(shown[..., None], look(self.pixels, x, y), fill)
        if self.mask is not None:
            self.mask = np.where(shown, _nearest(self.mask, x, y), np.uint8(self.style.mask_fill))


def _nearest(image: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    return image[np.floor(y).clip(0, height - 1).astype(int), np.floor(x).clip(0, width - 1).astype(int)]


def _bilinear(image: Image, x: np.ndarray, y: np.ndarray) -> Image:
    height, width = image.shape[:2]
    x, y = (x - 0.5).clip(0, width - 1), (y - 0.5).clip(0, height - 1)
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    right, bottom = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    across, down = (x - left)[..., None], (y - top)[..., None]
    values = image.astype(np.float64)
    upper = values[top, left] + (values[top, right] - values[top, left]) * across
    lower = values[bottom, left] + (values[bottom, right] - values[bottom, left]) * across
    return (upper + (lower - upper) * down + _ROUNDING).astype(np.uint8)


# --- colours ----------------------------------------------------------------------------------------------------------


def _rounded(values: np.ndarray) -> np.ndarray:
    return np.floor(values + 0.5).clip(0, 255).astype(np.uint8)


def _blend(image: np.ndarray, other: np.ndarray | int, factor: float) -> Image:
    """Pillow's: 0 is `other`, 1 the image; truncated."""
    base = np.asarray(other, np.float32)
    return (base + np.float32(factor) * (image - base)).clip(0, 255).astype(np.uint8)


def luma(pixels: Image) -> np.ndarray:
    """Pillow's ``L``, (H, W) uint8."""
    red, green, blue = np.moveaxis(pixels.astype(np.int64), -1, 0)
    return ((red * 19595 + green * 38470 + blue * 7471 + 32768) >> 16).astype(np.uint8)


def _contrast(pixels: Image, factor: float) -> Image:
    return _blend(pixels, int(luma(pixels).mean(dtype=np.float64) + 0.5), factor)


def _sharpness(pixels: Image, factor: float) -> Image:
    height, width = pixels.shape[:2]
    smooth = pixels.copy()
    if height > 2 and width > 2:
        values = pixels.astype(np.int64)
        total = 4 * values[1:-1, 1:-1]
        for down in range(3):
            for across in range(3):
                total = total + values[down : height - 2 + down, across : width - 2 + across]
        smooth[1:-1, 1:-1] = (total + 6) // 13
    return _blend(pixels, smooth, factor)


def _posterize(pixels: Image, bits: int) -> Image:
    return pixels if bits >= 8 else pixels & np.uint8(256 - (1 << (8 - max(bits, 0))))


def _equalize(pixels: Image) -> Image:
    result = np.empty_like(pixels)
    for channel in range(3):
        counts = np.bincount(pixels[..., channel].ravel(), minlength=256)
        used = counts[counts > 0]
        step = int(used.sum() - used[-1]) // 255
        table = np.arange(256)
        if len(used) > 1 and step:
            table = np.minimum((step // 2 + np.cumsum(counts) - counts) // step, 255)
        result[..., channel] = table[pixels[..., channel]]
    return result


def _autocontrast(pixels: Image) -> Image:
    result = pixels.copy()
    for channel in range(3):
        low, high = int(pixels[..., channel].min()), int(pixels[..., channel].max())
        if high > low:
            scale = 255.0 / (high - low)
            table = (np.arange(256) * scale - low * scale).clip(0, 255).astype(np.uint8)
            result[..., channel] = table[pixels[..., channel]]
    return result


def _gamma(pixels: Image, exponent: float) -> Image:
    table = np.minimum((256 - 1e-3) * (np.arange(256) / 255.0) ** exponent, 255).astype(np.uint8)
    return table[pixels]


def rotate_hue(values: np.ndarray, turns: float) -> np.ndarray:
    """Of (H, W, 3) floats in any range; Smith, "Color gamut transform pairs", SIGGRAPH 1978."""
    red, green, blue = np.moveaxis(values, -1, 0)
    high, low = values.max(-1), values.min(-1)
    spread = high - low
    divisor = np.where(spread == 0, 1, spread)
    of_green, of_blue = 2 + (blue - red) / divisor, 4 + (red - green) / divisor
    sector = np.where(high == red, (green - blue) / divisor, np.where(high == green, of_green, of_blue))
    k = np.stack([np.mod(sector + 6 * turns + n, 6) for n in (5, 3, 1)], -1)
    return high[..., None] - spread[..., None] * np.minimum(k, 4 - k).clip(0, 1)


# --- neighbourhoods ---------------------------------------------------------------------------------------------------


def gaussian_blur(pixels: Image, sigma: float) -> Image:
    """Pillow's Gaussian: three extended box blurs across, then three down (Gwosdek et al., SSVM 2011)."""
    variance = sigma * sigma / 3
    whole = math.floor((math.sqrt(12 * variance + 1) - 1) / 2)
    part = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance) / (6 * (variance - (whole + 1) ** 2))
    size = float(np.float32(whole + part))
    if size <= 0:
        return pixels
    for axis in (1, 1, 1, 0, 0, 0):
        pixels = _box_blur(pixels, size, axis)
    return pixels


def _box_blur(pixels: Image, size: float, axis: int) -> Image:
    radius = min(int(size), 127)
    weight = int(np.float32(1 << 24) / np.float32(np.float32(size) * 2 + 1))
    far = ((1 << 24) - (2 * radius + 1) * weight) // 2
    margin = [(0, 0)] * 3
    margin[axis] = (radius + 1, radius + 1)
    padded = np.moveaxis(np.pad(pixels.astype(np.int64), margin, mode="edge"), axis, 0)
    length = pixels.shape[axis]
    total = sum(padded[1 + tap : 1 + tap + length] for tap in range(2 * radius + 1)) * weight
    ends = (padded[:length] + padded[2 * radius + 2 : 2 * radius + 2 + length]) * far
    return np.moveaxis((total + ends + (1 << 23)) >> 24, 0, axis).astype(np.uint8)


# --- places -----------------------------------------------------------------------------------------------------------


def _erase(pixels: Image, arguments: list[float], style: Style, seed: int, stream: int) -> Image:
    height, width = pixels.shape[:2]
    top, left, tall, wide = (int(value) for value in arguments[:4])
    rows, columns = slice(max(top, 0), max(top + tall, 0)), slice(max(left, 0), max(left + wide, 0))
    colour = _rounded(np.array(arguments[5:8]))
    if arguments[4]:
        noise = normals(seed, stream, pixels.size).reshape(height, width, 3)
        colour = _rounded(np.array(style.noise_mean) + np.array(style.noise_deviation) * noise)[rows, columns]
    result = pixels.copy()
    result[rows, columns] = colour
    return result


def _shuffled(image: np.ndarray, cells: int, order: np.ndarray) -> np.ndarray:
    height, width = image.shape[0] // max(cells, 1), image.shape[1] // max(cells, 1)
    if cells < 2 or min(height, width) < 1:
        return image
    result = image.copy()
    for cell, source in enumerate(order.tolist()):
        (y, x), (from_y, from_x) = divmod(cell, cells), divmod(source, cells)
        result[y * height : (y + 1) * height, x * width : (x + 1) * width] = image[
            from_y * height : (from_y + 1) * height, from_x * width : (from_x + 1) * width
        ]
    return result


_POINTWISE: dict[Op, Callable[[Image, list[float]], Image]] = {
    Op.BRIGHTNESS: lambda image, a: _blend(image, 0, a[0]),
    Op.CONTRAST: lambda image, a: _contrast(image, a[0]),
    Op.SATURATION: lambda image, a: _blend(image, luma(image)[..., None], a[0]),
    Op.SHARPNESS: lambda image, a: _sharpness(image, a[0]),
    Op.POSTERIZE: lambda image, a: _posterize(image, int(a[0])),
    Op.SOLARIZE: lambda image, a: np.where(image < int(a[0]), image, 255 - image),
    Op.SOLARIZE_ADD: lambda image, a: np.where(
        image < int(a[1]), np.minimum(image.astype(int) + int(a[0]), 255), image
    ).astype(np.uint8),
    Op.INVERT: lambda image, a: 255 - image,
    Op.AUTOCONTRAST: lambda image, a: _autocontrast(image),
    Op.EQUALIZE: lambda image, a: _equalize(image),
    Op.GAMMA: lambda image, a: _gamma(image, a[0]),
    Op.HUE: lambda image, a: _rounded(rotate_hue(image.astype(np.float64), a[0])),
    Op.BLUR: lambda image, a: gaussian_blur(image, a[0]),
}


def known_table(op: Op, arguments: list[float]) -> np.ndarray:
    """(3, 256) uint8: what an operation of `TABLE_OPS` makes of each value."""
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[:, None, None], 3, 2)
    return np.ascontiguousarray(_POINTWISE[op](ramp, arguments)[:, 0].T)
