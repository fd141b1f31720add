"""From uint8 pixels to model input: crop, flip, colour jitter, normalise and store, one read and one write.

Contrast looks at the mean of the whole image after the operations before it. So where a sample has it, a first kernel
reads the same pixels, repeats those operations and leaves sums of a few blocks an image; to keep the half-jittered
image instead would be 12 bytes written and 12 read for each pixel, where reading it again is 3 (and often a hit in L2).
There are no atomics: sums are added in a fixed order, and results repeat bit for bit.
"""

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

from fasttrain.kernels.device_stage_plain import upload
from fasttrain.kernels.pixels import CONTRAST, Crops, Jitter, Target, active
from fasttrain.kernels.triton.colour import apply_operation, load_unit_rgb, luma, store, store_by_channel

# Programs take so many values or pixels at a time. A tensor of a program may not have more than 2^20.
_FLAT_BLOCK, _BLOCK, _LUMA_BLOCK = 4096, 1024, 8192
_NOTHING = 4  # the number behind the last operation

# What a sample's row of the parameters holds: 16 numbers of 32 bits.
_FIELDS = tl.constexpr(16)
_FACTORS = tl.constexpr(4)  # behind four numbers of operations
_TURN_OF_CONTRAST = tl.constexpr(8)
_ROW = tl.constexpr(9)
_LEFT, _TOP = tl.constexpr(10), tl.constexpr(11)
_HFLIP, _VFLIP = tl.constexpr(12), tl.constexpr(13)

_WHOLE, _BLACK, _REFLECT = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)


@triton.jit
def _image(source, sample, own, HEIGHT: tl.constexpr, WIDTH: tl.constexpr, KIND: tl.constexpr):
    """Where the sample's image begins; an index of 64 bits, for a data set may be larger than 2 GiB."""
    row = sample
    if KIND != _WHOLE:
        row = tl.load(own + _ROW)
    return source + row.to(tl.int64) * (HEIGHT * WIDTH * 3)


@triton.jit
def _reflected(position, limit: tl.constexpr):
    position = tl.abs(position)
    return tl.where(position >= limit, 2 * (limit - 1) - position, position)


@triton.jit
def _place(
    pixel, own, HEIGHT: tl.constexpr, WIDTH: tl.constexpr, OUT_H: tl.constexpr, OUT_W: tl.constexpr, KIND: tl.constexpr
):
    """Number of the source pixel that output pixels show, and whether there is one."""
    inside = pixel < OUT_H * OUT_W
    place = pixel
    if KIND != _WHOLE:
        y = pixel // OUT_W
        x = pixel - y * OUT_W
        x = tl.where(tl.load(own + _HFLIP) != 0, OUT_W - 1 - x, x) + tl.load(own + _LEFT)
        y = tl.where(tl.load(own + _VFLIP) != 0, OUT_H - 1 - y, y) + tl.load(own + _TOP)
        if KIND == _REFLECT:
            x, y = _reflected(x, WIDTH), _reflected(y, HEIGHT)
        else:
            inside &= (x >= 0) & (x < WIDTH) & (y >= 0) & (y < HEIGHT)
        place = y * WIDTH + x
    return place, inside


@triton.jit
def normalise_kernel(source, out, total, s0, s1, s2, h0, h1, h2, BLOCK: tl.constexpr):
    """Scale and shift, values as they lie: whole vectors are read and written."""
    first = tl.program_id(0).to(tl.int64) * BLOCK
    numbers = first + tl.arange(0, BLOCK)
    channel = ((first % 3).to(tl.int32) + tl.arange(0, BLOCK)) % 3
    value = tl.load(source + numbers, mask=numbers < total, other=0).to(tl.float32)
    store_by_channel(out + numbers, value, channel, s0, s1, s2, h0, h1, h2, numbers < total)


@triton.jit
def gather_kernel(
    source,
    parameters,
    out,
    s0,
    s1,
    s2,
    h0,
    h1,
    h2,
    HEIGHT: tl.constexpr,
    WIDTH: tl.constexpr,
    OUT_H: tl.constexpr,
    OUT_W: tl.constexpr,
    KIND: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Crop, flip, scale and shift; a lane for each value, so that what is stored lies side by side."""
    VALUES: tl.constexpr = OUT_H * OUT_W * 3
    BLOCKS: tl.constexpr = (VALUES + BLOCK - 1) // BLOCK
    sample = tl.program_id(0) // BLOCKS
    own = parameters + sample.to(tl.int64) * _FIELDS
    image = _image(source, sample, own, HEIGHT, WIDTH, KIND)
    number = (tl.program_id(0) % BLOCKS) * BLOCK + tl.arange(0, BLOCK)
    pixel = number // 3
    channel = number - pixel * 3
    place, inside = _place(pixel, own, HEIGHT, WIDTH, OUT_H, OUT_W, KIND)
    value = tl.load(image + place * 3 + channel, mask=inside, other=0).to(tl.float32)
    to = out + sample.to(tl.int64) * VALUES + number
    store_by_channel(to, value, channel, s0, s1, s2, h0, h1, h2, number < VALUES)


@triton.jit
def luma_kernel(
    source,
    parameters,
    sums,
    HEIGHT: tl.constexpr,
    WIDTH: tl.constexpr,
    OUT_H: tl.constexpr,
    OUT_W: tl.constexpr,
    KIND: tl.constexpr,
    BLOCK: tl.constexpr,
    LONG: tl.constexpr,
):
    """Sum of the luma that contrast will see, of each stretch of LONG pixels."""
    PIXELS: tl.constexpr = OUT_H * OUT_W
    PARTS: tl.constexpr = (PIXELS + LONG - 1) // LONG
    sample = tl.program_id(0) // PARTS
    begin = (tl.program_id(0) % PARTS) * LONG
    own = parameters + sample.to(tl.int64) * _FIELDS
    turns = tl.load(own + _TURN_OF_CONTRAST)
    if turns < 4:
        image = _image(source, sample, own, HEIGHT, WIDTH, KIND)
        total = tl.zeros([BLOCK], tl.float32)
        for start in range(begin, tl.minimum(begin + LONG, PIXELS), BLOCK):
            pixel = start + tl.arange(0, BLOCK)
            place, inside = _place(pixel, own, HEIGHT, WIDTH, OUT_H, OUT_W, KIND)
            red, green, blue = load_unit_rgb(image + place * 3, inside)
            for turn in range(turns):
                factor = tl.load(own + _FACTORS + turn).to(tl.float32, bitcast=True)
                red, green, blue = apply_operation(tl.load(own + turn), factor, 0.0, red, green, blue)
            total += tl.where(pixel < PIXELS, luma(red, green, blue), 0.0)
        tl.store(sums + tl.program_id(0), tl.sum(total, 0))


@triton.jit
def jitter_kernel(
    source,
    parameters,
    sums,
    out,
    s0,
    s1,
    s2,
    h0,
    h1,
    h2,
    HEIGHT: tl.constexpr,
    WIDTH: tl.constexpr,
    OUT_H: tl.constexpr,
    OUT_W: tl.constexpr,
    KIND: tl.constexpr,
    BLOCK: tl.constexpr,
    PARTS: tl.constexpr,
    PARTS_POWER: tl.constexpr,
):
    """Crop, flip, jitter, scale and shift; a lane for each pixel. Scales are those of values from 0 to 1."""
    PIXELS: tl.constexpr = OUT_H * OUT_W
    BLOCKS: tl.constexpr = (PIXELS + BLOCK - 1) // BLOCK
    sample = tl.program_id(0) // BLOCKS
    own = parameters + sample.to(tl.int64) * _FIELDS
    image = _image(source, sample, own, HEIGHT, WIDTH, KIND)
    pixel = (tl.program_id(0) % BLOCKS) * BLOCK + tl.arange(0, BLOCK)
    place, inside = _place(pixel, own, HEIGHT, WIDTH, OUT_H, OUT_W, KIND)
    red, green, blue = load_unit_rgb(image + place * 3, inside)
    mean = 0.0
    if tl.load(own + _TURN_OF_CONTRAST) < 4:
        part = tl.arange(0, PARTS_POWER)
        mean = tl.sum(tl.load(sums + sample * PARTS + part, mask=part < PARTS, other=0.0), 0) / PIXELS
    for turn in range(4):
        factor = tl.load(own + _FACTORS + turn).to(tl.float32, bitcast=True)
        red, green, blue = apply_operation(tl.load(own + turn), factor, mean, red, green, blue)
    to = out + sample.to(tl.int64) * (PIXELS * 3) + pixel * 3
    store(to, red, s0, h0, pixel < PIXELS)
    store(to + 1, green, s1, h1, pixel < PIXELS)
    store(to + 2, blue, s2, h2, pixel < PIXELS)


# --- launching -------------------------------------------------------------------------------------------------------


def finish(source: Tensor, target: Target, jitter: Jitter | None, crops: Crops | None, out: Tensor) -> None:
    """Fill `out` (B, height, width, 3) from images (N, H, W, 3) uint8: all of them in order, or `crops` of them.

    Both are contiguous and on the device that is current. One host-to-device copy brings all parameters along.
    """
    count, out_h, out_w, _ = out.shape
    height, width = source.shape[1:3]
    if max(height * width, out_h * out_w) * 3 >= 1 << 31:
        raise ValueError(f"an image of {width} x {height} or {out_w} x {out_h} pixels is too large for these kernels")
    if not count:
        return
    if crops is None and jitter is None:
        total = out.numel()
        normalise_kernel[(triton.cdiv(total, _FLAT_BLOCK),)](
            source, out, total, *target.scale, *target.shift, BLOCK=_FLAT_BLOCK
        )
        return
    parameters = upload(pack(count, jitter, crops), out.device)
    shape = {"HEIGHT": height, "WIDTH": width, "OUT_H": out_h, "OUT_W": out_w, "KIND": _kind(crops)}
    if jitter is None:
        grid = (count * triton.cdiv(3 * out_h * out_w, _BLOCK),)
        gather_kernel[grid](source, parameters, out, *target.scale, *target.shift, **shape, BLOCK=_BLOCK)
        return
    parts = triton.cdiv(out_h * out_w, _LUMA_BLOCK)
    sums = torch.empty(count * parts, device=out.device)
    if ((jitter.order == CONTRAST) & active(jitter)).any():
        luma_kernel[(count * parts,)](source, parameters, sums, **shape, BLOCK=_BLOCK, LONG=_LUMA_BLOCK)
    scale = [255 * value for value in target.scale]
    jitter_kernel[(count * triton.cdiv(out_h * out_w, _BLOCK),)](
        source,
        parameters,
        sums,
        out,
        *scale,
        *target.shift,
        **shape,
        BLOCK=_BLOCK,
        PARTS=parts,
        PARTS_POWER=triton.next_power_of_2(parts),
    )


def _kind(crops: Crops | None) -> int:
    if crops is None:
        return _WHOLE.value
    return _BLACK.value if crops.padding == "black" else _REFLECT.value


def pack(count: int, jitter: Jitter | None, crops: Crops | None) -> np.ndarray:
    """(B, 16) int32: a row of parameters for each sample."""
    packed = np.zeros((count, _FIELDS.value), np.int32)
    packed[:, :4], packed[:, _TURN_OF_CONTRAST.value] = _NOTHING, 4
    if jitter is not None:
        changes = active(jitter)
        packed[:, :4] = np.where(changes, jitter.order, _NOTHING)
        factors = np.take_along_axis(jitter.factors, jitter.order, 1).astype(np.float32)
        packed[:, _FACTORS.value : _FACTORS.value + 4] = factors.view(np.int32)
        contrast = changes & (jitter.order == CONTRAST)
        packed[:, _TURN_OF_CONTRAST.value] = np.where(contrast.any(1), contrast.argmax(1), 4)
    if crops is not None:
        packed[:, _ROW.value] = crops.rows
        packed[:, [_LEFT.value, _TOP.value]] = crops.corners
        packed[:, _HFLIP.value], packed[:, _VFLIP.value] = crops.hflip, crops.vflip
    return packed
