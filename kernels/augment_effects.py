"""Common corruptions (Hendrycks and Dietterich, ICLR 2019) in NumPy, with the arithmetic of `imagecorruptions`.

Differences from it: values are rounded, not truncated; Gaussian filters are three box blurs; frost is drawn, for the
original pastes photographs; drops of water are lit by their slope instead of OpenCV's edges and distance transform.
`image` is (H, W, 3) uint8 and the result, too; `mask` is (H, W) or None.
"""

import io
import math

import numpy as np
from PIL import Image

from fasttrain.kernels.augment_program import Op
from fasttrain.kernels.augment_random import normals, uniforms

Mask = np.ndarray | None
WATER, MUD, ICE = (175.0, 238.0, 238.0), (63.0, 42.0, 20.0), (200.0, 225.0, 255.0)


def apply_effect(
    op: Op, image: np.ndarray, mask: Mask, arguments: list[float], seed: int, stream: int
) -> tuple[np.ndarray, Mask]:
    """Image and mask after one of the corruptions."""
    if op == Op.ELASTIC:
        return elastic(image, mask, arguments[0], seed, stream)
    values, (height, width) = image.astype(np.float64), image.shape[:2]
    if op == Op.FADE:
        mean = values.mean((0, 1))
        return _bytes((values - mean) * arguments[0] + mean), mask
    if op == Op.LIGHTEN:
        return _bytes(_lighten(values, arguments[0])), mask
    if op == Op.SATURATE:
        return _bytes(_saturate(values, arguments[0], arguments[1])), mask
    if op == Op.PIXELATE:
        return _pixelate(image, arguments[0]), mask
    if op == Op.JPEG:
        return _jpeg(image, int(arguments[0])), mask
    if op == Op.FOG:
        most = values.max() / 255
        fog = arguments[0] * plasma(height, width, arguments[1], seed, stream)[..., None]
        return _bytes((values + 255 * fog) * most / (most + arguments[0]) if most else values), mask
    if op == Op.FROST:
        frost = _frost(height, width, seed, stream)[..., None] * np.array(ICE)
        return _bytes(arguments[0] * values + arguments[1] * frost), mask
    if op == Op.SNOW:
        return _bytes(_snow(values, arguments, seed, stream)), mask
    if op == Op.SPATTER:
        return _bytes(_spatter(values, arguments, seed, stream)), mask
    raise ValueError(f"{op.name} is no corruption")


def _bytes(values: np.ndarray) -> np.ndarray:
    return np.floor(values + 0.5).clip(0, 255).astype(np.uint8)


# --- colours ----------------------------------------------------------------------------------------------------------


def _lighten(values: np.ndarray, share: float) -> np.ndarray:
    """The value of HSV raised by a share of 255; hue and saturation stay."""
    value = values.max(-1, keepdims=True)
    wanted = np.minimum(value + 255 * share, 255)
    return np.where(value > 0, values * wanted / np.maximum(value, 1), wanted)


def _saturate(values: np.ndarray, factor: float, addend: float) -> np.ndarray:
    """The saturation of HSV, scaled and raised; grey has the hue of red."""
    value = values.max(-1, keepdims=True)
    spread = value - values.min(-1, keepdims=True)
    saturation = spread / np.maximum(value, 1)
    wanted = (saturation * factor + addend).clip(0, 1)
    red = np.concatenate([value, value * (1 - wanted), value * (1 - wanted)], -1)
    return np.where(spread > 0, value - (value - values) * wanted * value / np.maximum(spread, 1), red)


def _pixelate(image: np.ndarray, share: float) -> np.ndarray:
    (height, width), share = image.shape[:2], min(share, 1.0)
    small = Image.fromarray(image).resize(
        (max(int(width * share), 1), max(int(height * share), 1)), Image.Resampling.BOX
    )
    return np.asarray(small.resize((width, height), Image.Resampling.BOX))


def _jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=quality)
    return np.asarray(Image.open(stream))


# --- geometry ---------------------------------------------------------------------------------------------------------


def elastic(image: np.ndarray, mask: Mask, alpha: float, seed: int, stream: int) -> tuple[np.ndarray, Mask]:
    """Each pixel looks a little aside, by smooth random fields; mirrored at the border."""
    height, width = image.shape[:2]
    reach, sigma = 0.005 * height, 0.01 * max(height, width)
    fields = [
        smooth((2 * uniforms(seed, stream + part, height * width).reshape(height, width) - 1.0) * reach, sigma) * alpha
        for part in range(2)
    ]
    y, x = np.mgrid[0:height, 0:width]
    x, y = _mirrored(x + fields[0], width), _mirrored(y + fields[1], height)
    if mask is not None:
        mask = mask[np.floor(y + 0.5).astype(int).clip(0, height - 1), np.floor(x + 0.5).astype(int).clip(0, width - 1)]
    return _bytes(_look(image.astype(np.float64), x, y)), mask


def _mirrored(at: np.ndarray, length: int) -> np.ndarray:
    """Positions within the axis, mirrored at its first and last pixel."""
    if length == 1:
        return np.zeros_like(at)
    period = 2.0 * (length - 1)
    at = np.abs(at)
    at = at - np.floor(at / period) * period
    return np.minimum(at, period - at)


def _look(values: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Bilinear; `values` (H, W) or (H, W, C), positions within it."""
    height, width = values.shape[:2]
    left, top = np.minimum(np.floor(x).astype(int), width - 1), np.minimum(np.floor(y).astype(int), height - 1)
    right, bottom = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    across, down = x - left, y - top
    if values.ndim == 3:
        across, down = across[..., None], down[..., None]
    upper = values[top, left] + (values[top, right] - values[top, left]) * across
    lower = values[bottom, left] + (values[bottom, right] - values[bottom, left]) * across
    return upper + (lower - upper) * down


# --- patterns ---------------------------------------------------------------------------------------------------------


def smooth(plane: np.ndarray, sigma: float) -> np.ndarray:
    """Nearly a Gaussian filter of a float64 plane: three extended box blurs an axis, the border repeated."""
    variance = sigma * sigma / 3
    whole = math.floor((math.sqrt(12 * variance + 1) - 1) / 2)
    part = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance) / (6 * (variance - (whole + 1) ** 2))
    weight = 1 / (2 * (whole + part) + 1)
    for axis in (1, 0):
        length = plane.shape[axis]
        places = np.arange(-whole - 1, length + whole + 1).clip(0, length - 1)
        for _ in range(3):
            line = np.moveaxis(plane, axis, 0)[places]
            sums = np.concatenate([np.zeros_like(line[:1]), np.cumsum(line, 0)])
            total = sums[2 * whole + 2 : 2 * whole + 2 + length] - sums[1 : 1 + length]
            ends = line[:length] + line[2 * whole + 2 : 2 * whole + 2 + length]
            plane = np.moveaxis((total + part * ends) * weight, 0, axis)
    return plane


def plasma(height: int, width: int, decay: float, seed: int, stream: int) -> np.ndarray:
    """A cloud (height, width) float64 from 0 to 1, by the diamond-square algorithm on a torus."""
    size = 1 << max(max(height, width) - 1, 1).bit_length()
    cloud = np.zeros((size, size))
    noise = 2.0 * uniforms(seed, stream, size * size).reshape(size, size) - 1
    step, reach = size, 100.0
    while step >= 2:
        half = step // 2
        corner = cloud[::step, ::step]
        four = corner + np.roll(corner, -1, 0)
        four = four + np.roll(four, -1, 1)
        cloud[half::step, half::step] = four / 4 + reach * reach * noise[half::step, half::step]
        centre = cloud[half::step, half::step]
        beside = centre + np.roll(centre, 1, 0) + corner + np.roll(corner, -1, 1)
        cloud[::step, half::step] = beside / 4 + reach * reach * noise[::step, half::step]
        above = centre + np.roll(centre, 1, 1) + corner + np.roll(corner, -1, 0)
        cloud[half::step, ::step] = above / 4 + reach * reach * noise[half::step, ::step]
        step, reach = half, reach / decay
    cloud -= cloud.min()
    return (cloud / max(cloud.max(), 1e-12))[:height, :width]


def _frost(height: int, width: int, seed: int, stream: int) -> np.ndarray:
    """Ice (height, width) 0 to 1: ridges of a rough cloud, denser where a soft one is bright."""
    soft, rough = plasma(height, width, 1.9, seed, stream), plasma(height, width, 1.4, seed, stream + 1)
    ridges = 1 - np.abs(2 * rough - 1)
    return (1.4 * soft * ridges + 0.5 * soft - 0.25).clip(0, 1)


def _snow(values: np.ndarray, arguments: list[float], seed: int, stream: int) -> np.ndarray:
    mean, deviation, zoom, least, radius, sigma, share = arguments[:7]
    height, width = values.shape[:2]
    tall, wide = math.ceil(height / zoom), math.ceil(width / zoom)
    flakes = mean + deviation * normals(seed, stream, tall * wide).astype(np.float64).reshape(tall, wide)
    y, x = np.mgrid[0:height, 0:width] / zoom
    layer = _look(flakes, np.minimum(x, wide - 1), np.minimum(y, tall - 1))
    layer = np.where(layer < least, 0.0, layer).clip(0, 1)
    layer = _streaks(layer, int(radius), sigma, -135 + 90 * float(uniforms(seed, stream + 1, 1)[0]))
    grey = (values @ np.array([0.299, 0.587, 0.114]))[..., None]
    pale = share * values + (1 - share) * np.maximum(values, grey * 1.5 + 127.5)
    return pale + 255 * (layer + layer[::-1, ::-1])[..., None]


def _streaks(layer: np.ndarray, radius: int, sigma: float, angle: float) -> np.ndarray:
    """Motion blur: looks back along a line, with the weights of half a Gaussian."""
    height, width = layer.shape
    length = 2 * radius + 1
    weights = np.exp(-(np.arange(length) ** 2) / (2 * sigma * sigma))
    weights /= weights.sum()
    result = np.zeros_like(layer)
    for i in range(length):
        down = -math.ceil(i * math.sin(math.radians(angle)) - 0.5)
        across = -math.ceil(i * math.cos(math.radians(angle)) - 0.5)
        rows = (np.arange(height) - down).clip(0, height - 1)
        columns = (np.arange(width) - across).clip(0, width - 1)
        result += weights[i] * layer[rows][:, columns]
    return result


def _spatter(values: np.ndarray, arguments: list[float], seed: int, stream: int) -> np.ndarray:
    mean, deviation, sigma, least, strength, mud = arguments[:6]
    height, width = values.shape[:2]
    liquid = mean + deviation * normals(seed, stream, height * width).astype(np.float64).reshape(height, width)
    liquid = smooth(liquid, sigma)
    if mud:
        spots = smooth((liquid > least).astype(np.float64), strength)
        spots = np.where(spots < 0.8, 0.0, spots)[..., None]
        return values * (1 - spots) + spots * np.array(MUD)
    depth = np.maximum(liquid - least, 0.0)
    edged = np.pad(depth, 1, mode="edge")
    slope = np.abs(edged[2:, 2:] - edged[:-2, :-2]) * (depth > 0)
    return values + strength * (slope / max(slope.max(), 1e-12))[..., None] * np.array(WATER)
