"""Antialiased resize of boxes of images of various sizes, in one kernel, with Pillow's windows and weights.

Why not two passes: with a reduction by s, a source of 3 s²S² bytes becomes S x S pixels, and the image between the
passes is S wide and sS high: 6 sS² bytes in float16, written and read again. At s = 2 that is 24 S² bytes beside 12 S²
of source and 6 S² of result, so the intermediate would more than double the traffic, and a batch of it does not fit
into L2. Here a program makes a tile of the result. It filters each source row that the tile needs along the row once
and adds it, times its weight, to every row of the tile, which stay in registers: only the few rows that two tiles share
are filtered twice (a quarter more with bilinear and tiles of 8 rows), and read again from the cache.

Weights are worked out where they are used, a handful of instructions beside three loads. The centre of a window is
split into whole pixels and a fraction with integers (of 64 bits only where they have to be: dividing those is slow), so
that single precision is enough in images of any size. A weight is zero outside of Pillow's window by itself;
their sum is divided out at the end.
"""

import numpy as np
import triton
import triton.language as tl
from torch import Tensor

from fasttrain.kernels.device_stage_plain import upload
from fasttrain.kernels.pixels import FlatImages, Geometry, Target
from fasttrain.kernels.triton.colour import load_rgb, store

# A warp a program: each of its lanes has a column of the tile to itself, and filters it without idle neighbours.
_TILE_H, _TILE_W, _WARPS = 8, 32, 1

# What a sample's row of the parameters holds: 16 numbers of 64 bits.
_FIELDS = tl.constexpr(16)
_OFFSET, _WIDTH, _HEIGHT = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)
_LEFT, _TOP, _BOX_W, _BOX_H = tl.constexpr(3), tl.constexpr(4), tl.constexpr(5), tl.constexpr(6)
_RESIZED_W, _RESIZED_H = tl.constexpr(7), tl.constexpr(8)
_WINDOW_X, _WINDOW_Y = tl.constexpr(9), tl.constexpr(10)
_HFLIP, _VFLIP = tl.constexpr(11), tl.constexpr(12)


@triton.jit
def _centre(position, length, resized, WIDE: tl.constexpr):
    """Centre of an output pixel among the source pixels: the pixel that it lies in, and the fraction."""
    numerator = 2 * position + 1
    if WIDE:
        numerator = numerator.to(tl.int64)
    numerator *= length
    whole = numerator // (2 * resized)
    rest = numerator - whole * (2 * resized)
    return whole.to(tl.int32), rest.to(tl.float32) / (2 * resized).to(tl.float32)


@triton.jit
def _weight(distance, BICUBIC: tl.constexpr):
    x = tl.abs(distance)
    if BICUBIC:  # Keys, "Cubic convolution interpolation for digital image processing", 1981, a = -0.5
        near = (1.5 * x - 2.5) * x * x + 1
        far = ((2.5 - 0.5 * x) * x - 4) * x + 2
        return tl.where(x < 1, near, tl.where(x < 2, far, 0.0))
    else:
        return tl.maximum(1 - x, 0.0)


@triton.jit
def resample_kernel(
    source,
    parameters,
    out,
    s0,
    s1,
    s2,
    h0,
    h1,
    h2,
    SIZE: tl.constexpr,
    BICUBIC: tl.constexpr,
    PLANAR: tl.constexpr,
    ROUND: tl.constexpr,
    WIDE: tl.constexpr,
    TILE_H: tl.constexpr,
    TILE_W: tl.constexpr,
):
    TILES_X: tl.constexpr = (SIZE + TILE_W - 1) // TILE_W
    TILES: tl.constexpr = TILES_X * ((SIZE + TILE_H - 1) // TILE_H)
    RADIUS: tl.constexpr = 2.0 if BICUBIC else 1.0
    sample = tl.program_id(0) // TILES
    tile = tl.program_id(0) % TILES
    own = parameters + sample.to(tl.int64) * _FIELDS
    width, height = tl.load(own + _WIDTH), tl.load(own + _HEIGHT)
    box_w, box_h = tl.load(own + _BOX_W).to(tl.int32), tl.load(own + _BOX_H).to(tl.int32)
    resized_w, resized_h = tl.load(own + _RESIZED_W).to(tl.int32), tl.load(own + _RESIZED_H).to(tl.int32)
    pixel_step = 1 if PLANAR else 3
    channel_step = width * height if PLANAR else 1
    box = source + tl.load(own + _OFFSET) + (tl.load(own + _TOP) * width + tl.load(own + _LEFT)) * pixel_step

    # Columns of the tile: what lies behind the last one is the last one once more, and not stored.
    first_x, first_y = (tile % TILES_X) * TILE_W, (tile // TILES_X) * TILE_H
    x = tl.minimum(first_x + tl.arange(0, TILE_W), SIZE - 1)
    stretch_x = tl.maximum(box_w.to(tl.float32) / resized_w.to(tl.float32), 1.0)
    shown_x = tl.where(tl.load(own + _HFLIP) != 0, SIZE - 1 - x, x) + tl.load(own + _WINDOW_X).to(tl.int32)
    whole_x, part_x = _centre(shown_x, box_w, resized_w, WIDE)
    first_tap = tl.maximum(whole_x + tl.floor(part_x - RADIUS * stretch_x + 0.5).to(tl.int32), 0)
    taps = (2 * RADIUS * stretch_x).to(tl.int32) + 2
    nearest = (first_tap - whole_x).to(tl.float32) + 0.5 - part_x  # of the first tap, in source pixels

    # Rows of the tile, and the source rows that they need between them.
    y = tl.minimum(first_y + tl.arange(0, TILE_H), SIZE - 1)
    last_y = tl.minimum(first_y + TILE_H, SIZE) - 1
    upside_down = tl.load(own + _VFLIP) != 0
    window_y = tl.load(own + _WINDOW_Y).to(tl.int32)
    stretch_y = tl.maximum(box_h.to(tl.float32) / resized_h.to(tl.float32), 1.0)
    whole_y, part_y = _centre(tl.where(upside_down, SIZE - 1 - y, y) + window_y, box_h, resized_h, WIDE)
    top_y, top_part = _centre(tl.where(upside_down, SIZE - 1 - last_y, first_y) + window_y, box_h, resized_h, WIDE)
    low_y, low_part = _centre(tl.where(upside_down, SIZE - 1 - first_y, last_y) + window_y, box_h, resized_h, WIDE)
    begin = tl.maximum(top_y + tl.floor(top_part - RADIUS * stretch_y + 0.5).to(tl.int32), 0)
    end = tl.minimum(low_y + tl.floor(low_part + RADIUS * stretch_y + 0.5).to(tl.int32) + 1, box_h)

    shrink_x, shrink_y = 1 / stretch_x, 1 / stretch_y
    sum_x = tl.zeros([TILE_W], tl.float32)
    for k in range(taps):
        weight = _weight((nearest + k) * shrink_x, BICUBIC)
        sum_x += tl.where(first_tap + k < box_w, weight, 0.0)
    sum_y = tl.zeros([TILE_H], tl.float32)
    red = tl.zeros([TILE_H, TILE_W], tl.float32)
    green = tl.zeros([TILE_H, TILE_W], tl.float32)
    blue = tl.zeros([TILE_H, TILE_W], tl.float32)
    for row in range(begin, end):
        line = box + tl.cast(row, tl.int64) * width * pixel_step
        row_red = tl.zeros([TILE_W], tl.float32)
        row_green = tl.zeros([TILE_W], tl.float32)
        row_blue = tl.zeros([TILE_W], tl.float32)
        for k in range(taps):
            inside = first_tap + k < box_w
            weight = _weight((nearest + k) * shrink_x, BICUBIC)
            tap_red, tap_green, tap_blue = load_rgb(line + (first_tap + k) * pixel_step, channel_step, inside)
            row_red += weight * tap_red
            row_green += weight * tap_green
            row_blue += weight * tap_blue
        weight_y = _weight(((row - whole_y).to(tl.float32) + 0.5 - part_y) * shrink_y, BICUBIC)
        sum_y += weight_y
        red += weight_y[:, None] * row_red[None, :]
        green += weight_y[:, None] * row_green[None, :]
        blue += weight_y[:, None] * row_blue[None, :]

    norm = 1 / (sum_y[:, None] * sum_x[None, :])
    row, column = first_y + tl.arange(0, TILE_H)[:, None], first_x + tl.arange(0, TILE_W)[None, :]
    to = out + sample.to(tl.int64) * (SIZE * SIZE * 3) + (row * SIZE + column) * 3
    mask = (row < SIZE) & (column < SIZE)
    _finish(to, red * norm, s0, h0, mask, ROUND)
    _finish(to + 1, green * norm, s1, h1, mask, ROUND)
    _finish(to + 2, blue * norm, s2, h2, mask, ROUND)


@triton.jit
def _finish(to, value, scale, shift, mask, ROUND: tl.constexpr):
    value = tl.minimum(tl.maximum(value, 0.0), 255.0)
    if ROUND:
        tl.store(to, (value + 0.5).to(tl.int32).to(tl.uint8), mask=mask)
    else:
        store(to, value, scale, shift, mask)


def resample(images: FlatImages, geometry: Geometry, target: Target | None, out: Tensor) -> None:
    """Fill `out` (B, size, size, 3), uint8 without a target, on the device that is current."""
    count, size = out.shape[:2]
    if size * size * 3 >= 1 << 31:
        raise ValueError(f"images of {size} x {size} pixels are too large for this kernel")
    if not count:
        return
    scale, shift = (target.scale, target.shift) if target is not None else ((1.0,) * 3, (0.0,) * 3)
    tiles = triton.cdiv(size, _TILE_W) * triton.cdiv(size, _TILE_H)
    resample_kernel[(count * tiles,)](
        images.buffer,
        upload(pack(images, geometry), out.device),
        out,
        *scale,
        *shift,
        SIZE=size,
        BICUBIC=geometry.filter == "bicubic",
        PLANAR=images.planar,
        ROUND=target is None,
        WIDE=bool((2 * (geometry.resized + 1) * geometry.boxes[:, 2:]).max() >= 1 << 31),
        TILE_H=_TILE_H,
        TILE_W=_TILE_W,
        num_warps=_WARPS,
    )


def pack(images: FlatImages, geometry: Geometry) -> np.ndarray:
    """(B, 16) int64: a row of parameters for each sample."""
    packed = np.zeros((len(images.offsets), _FIELDS.value), np.int64)
    packed[:, _OFFSET.value] = images.offsets
    packed[:, [_WIDTH.value, _HEIGHT.value]] = images.sizes
    packed[:, [_LEFT.value, _TOP.value, _BOX_W.value, _BOX_H.value]] = geometry.boxes
    packed[:, [_RESIZED_W.value, _RESIZED_H.value]] = geometry.resized
    packed[:, [_WINDOW_X.value, _WINDOW_Y.value]] = geometry.windows
    packed[:, _HFLIP.value], packed[:, _VFLIP.value] = geometry.hflip, geometry.vflip
    return packed
