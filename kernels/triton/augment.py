"""Augmentation on a GPU: a kernel a step, for all images of a batch at once, each with its own operation.

Affine operations that follow each other are one step. What looks at an image's histogram becomes a table first, by
torch on the device, as those operations do whose table is known beforehand: so one kernel does all. Nothing waits for
the device.
"""

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

from fasttrain.kernels.augment_plain import known_table
from fasttrain.kernels.augment_program import TABLE_OPS, Op, Program
from fasttrain.kernels.device_stage_plain import upload

_BLOCK = 512
_CHAIN = 4  # affine operations that one step holds; more of them take a further step

_COPY, _TABLE, _AFFINE, _SATURATION, _HUE, _SHARPNESS, _NOISE, _ERASE = (tl.constexpr(code) for code in range(8))
_FIELDS = tl.constexpr(48)  # numbers of a sample and step
_ARGUMENTS, _LENGTH, _MATRICES = tl.constexpr(1), tl.constexpr(9), tl.constexpr(10)
_MEASURED = (Op.CONTRAST, Op.AUTOCONTRAST, Op.EQUALIZE)
_CODES = {
    Op.AFFINE: _AFFINE.value,
    Op.SATURATION: _SATURATION.value,
    Op.HUE: _HUE.value,
    Op.SHARPNESS: _SHARPNESS.value,
    Op.NOISE: _NOISE.value,
    Op.ERASE: _ERASE.value,
    **dict.fromkeys([*TABLE_OPS, *_MEASURED], _TABLE.value),
}


def can_do(program: Program) -> bool:
    """Whether all operations of a program are among those that run here."""
    return set(np.unique(program.operations).tolist()) <= {Op.NOTHING, *_CODES}


# --- kernels ---------------------------------------------------------------------------------------------------------


@triton.jit
def _mixed(x):
    x = x ^ (x >> 16)
    x = x * 0x7FEB352D
    x = x ^ (x >> 15)
    x = x * 0x846CA68B
    return x ^ (x >> 16)


@triton.jit
def _normal(counter, low, own):
    """Standardised sums of four uniform bytes of a hash; see `fasttrain.kernels.augment_random`."""
    bits = _mixed(_mixed(counter.to(tl.uint32) + low) ^ own)
    total = (bits & 255) + ((bits >> 8) & 255) + ((bits >> 16) & 255) + (bits >> 24)
    return (total.to(tl.int32) - 510).to(tl.float32) * (1 / 147.80054)


@triton.jit
def _byte(value):
    return tl.minimum(tl.maximum(value, 0.0), 255.0).to(tl.int32)


@triton.jit
def _blended(value, other, factor):
    return _byte(other.to(tl.float32) + factor * (value - other).to(tl.float32))


@triton.jit
def _load(image, place, mask):
    red = tl.load(image + place * 3, mask=mask, other=0).to(tl.int32)
    green = tl.load(image + place * 3 + 1, mask=mask, other=0).to(tl.int32)
    blue = tl.load(image + place * 3 + 2, mask=mask, other=0).to(tl.int32)
    return red, green, blue


@triton.jit
def _between(a, b, c, d, across, down):
    a, b, c, d = a.to(tl.float32), b.to(tl.float32), c.to(tl.float32), d.to(tl.float32)
    upper, lower = a + (b - a) * across, c + (d - c) * across
    return (upper + (lower - upper) * down + 1 / 1024).to(tl.int32)


@triton.jit
def _hue_channel(high, spread, hue, n: tl.constexpr):
    k = hue + n
    k -= 6 * tl.floor(k * (1 / 6))
    return _byte(high - spread * tl.minimum(tl.maximum(tl.minimum(k, 4 - k), 0.0), 1.0) + 0.5)


@triton.jit
def step_kernel(
    source,
    numbers,
    seeds,
    tables,
    out,
    stream,
    f0,
    f1,
    f2,
    m0,
    m1,
    m2,
    d0,
    d1,
    d2,
    HEIGHT: tl.constexpr,
    WIDTH: tl.constexpr,
    BILINEAR: tl.constexpr,
    BLOCK: tl.constexpr,
):
    PIXELS: tl.constexpr = HEIGHT * WIDTH
    BLOCKS: tl.constexpr = (PIXELS + BLOCK - 1) // BLOCK
    sample = tl.program_id(0) // BLOCKS
    pixel = (tl.program_id(0) % BLOCKS) * BLOCK + tl.arange(0, BLOCK)
    there = pixel < PIXELS
    y = pixel // WIDTH
    x = pixel - y * WIDTH
    own = numbers + sample.to(tl.int64) * _FIELDS
    image = source + sample.to(tl.int64) * (PIXELS * 3)
    code = tl.load(own).to(tl.int32)
    first = tl.load(own + _ARGUMENTS)
    red, green, blue = _load(image, pixel, there)
    if code == _TABLE:
        table = tables + sample.to(tl.int64) * 768
        red = tl.load(table + red, mask=there, other=0).to(tl.int32)
        green = tl.load(table + 256 + green, mask=there, other=0).to(tl.int32)
        blue = tl.load(table + 512 + blue, mask=there, other=0).to(tl.int32)
    elif code == _AFFINE:
        at_x, at_y = x.to(tl.float32) + 0.5, y.to(tl.float32) + 0.5
        shown = there
        for turn in range(tl.load(own + _LENGTH).to(tl.int32)):
            m = own + _MATRICES + 6 * turn
            new_x = tl.load(m) * at_x + tl.load(m + 1) * at_y + tl.load(m + 2)
            at_y = tl.load(m + 3) * at_x + tl.load(m + 4) * at_y + tl.load(m + 5)
            at_x = new_x
            shown = shown & (at_x >= 0) & (at_x < WIDTH) & (at_y >= 0) & (at_y < HEIGHT)
        if BILINEAR:
            at_x = tl.minimum(tl.maximum(at_x - 0.5, 0.0), WIDTH - 1.0)
            at_y = tl.minimum(tl.maximum(at_y - 0.5, 0.0), HEIGHT - 1.0)
            left, top = at_x.to(tl.int32), at_y.to(tl.int32)
            right, bottom = tl.minimum(left + 1, WIDTH - 1), tl.minimum(top + 1, HEIGHT - 1)
            across, down = at_x - left.to(tl.float32), at_y - top.to(tl.float32)
            red_a, green_a, blue_a = _load(image, top * WIDTH + left, shown)
            red_b, green_b, blue_b = _load(image, top * WIDTH + right, shown)
            red_c, green_c, blue_c = _load(image, bottom * WIDTH + left, shown)
            red_d, green_d, blue_d = _load(image, bottom * WIDTH + right, shown)
            red = _between(red_a, red_b, red_c, red_d, across, down)
            green = _between(green_a, green_b, green_c, green_d, across, down)
            blue = _between(blue_a, blue_b, blue_c, blue_d, across, down)
        else:
            near_x = tl.minimum(tl.maximum(at_x, 0.0).to(tl.int32), WIDTH - 1)
            near_y = tl.minimum(tl.maximum(at_y, 0.0).to(tl.int32), HEIGHT - 1)
            red, green, blue = _load(image, near_y * WIDTH + near_x, shown)
        red, green, blue = tl.where(shown, red, f0), tl.where(shown, green, f1), tl.where(shown, blue, f2)
    elif code == _SATURATION:
        grey = (red * 19595 + green * 38470 + blue * 7471 + 32768) >> 16
        red, green, blue = _blended(red, grey, first), _blended(green, grey, first), _blended(blue, grey, first)
    elif code == _HUE:
        r, g, b = red.to(tl.float32), green.to(tl.float32), blue.to(tl.float32)
        high = tl.maximum(tl.maximum(r, g), b)
        spread = high - tl.minimum(tl.minimum(r, g), b)
        inverse = 1 / tl.where(spread == 0, 1.0, spread)
        sector = tl.where(
            high == r, (g - b) * inverse, tl.where(high == g, 2 + (b - r) * inverse, 4 + (r - g) * inverse)
        )
        hue = sector + first * 6
        red, green = _hue_channel(high, spread, hue, 5), _hue_channel(high, spread, hue, 3)
        blue = _hue_channel(high, spread, hue, 1)
    elif code == _SHARPNESS:
        inner = there & (x > 0) & (x < WIDTH - 1) & (y > 0) & (y < HEIGHT - 1)
        reds, greens, blues = 4 * red + 6, 4 * green + 6, 4 * blue + 6
        for down_ in tl.static_range(-1, 2):
            for across_ in tl.static_range(-1, 2):
                r_, g_, b_ = _load(image, pixel + down_ * WIDTH + across_, inner)
                reds, greens, blues = reds + r_, greens + g_, blues + b_
        red = tl.where(inner, _blended(red, reds // 13, first), red)
        green = tl.where(inner, _blended(green, greens // 13, first), green)
        blue = tl.where(inner, _blended(blue, blues // 13, first), blue)
    elif code >= _NOISE:
        low = tl.load(seeds + 2 * sample).to(tl.uint32, bitcast=True)
        high_bits = tl.load(seeds + 2 * sample + 1).to(tl.uint32, bitcast=True)
        bits = high_bits + stream.to(tl.uint32) * 0x9E3779B9
        z_red, z_green = _normal(pixel * 3, low, bits), _normal(pixel * 3 + 1, low, bits)
        z_blue = _normal(pixel * 3 + 2, low, bits)
        if code == _NOISE:
            red = _byte(red.to(tl.float32) + first * z_red + 0.5)
            green = _byte(green.to(tl.float32) + first * z_green + 0.5)
            blue = _byte(blue.to(tl.float32) + first * z_blue + 0.5)
        else:
            top_, left_ = first.to(tl.int32), tl.load(own + _ARGUMENTS + 1).to(tl.int32)
            tall, wide = tl.load(own + _ARGUMENTS + 2).to(tl.int32), tl.load(own + _ARGUMENTS + 3).to(tl.int32)
            box = (y >= top_) & (y < top_ + tall) & (x >= left_) & (x < left_ + wide)
            noisy = tl.load(own + _ARGUMENTS + 4) != 0
            new_red = tl.where(noisy, m0 + d0 * z_red, tl.load(own + _ARGUMENTS + 5))
            new_green = tl.where(noisy, m1 + d1 * z_green, tl.load(own + _ARGUMENTS + 6))
            new_blue = tl.where(noisy, m2 + d2 * z_blue, tl.load(own + _ARGUMENTS + 7))
            red = tl.where(box, _byte(new_red + 0.5), red)
            green = tl.where(box, _byte(new_green + 0.5), green)
            blue = tl.where(box, _byte(new_blue + 0.5), blue)
    to = out + sample.to(tl.int64) * (PIXELS * 3) + pixel * 3
    tl.store(to, red.to(tl.uint8), mask=there)
    tl.store(to + 1, green.to(tl.uint8), mask=there)
    tl.store(to + 2, blue.to(tl.uint8), mask=there)


# --- launching -------------------------------------------------------------------------------------------------------


def run(pixels: Tensor, program: Program, out: Tensor) -> None:
    """Fill `out` (B, H, W, 3) uint8 from as many pixels (which `out` may be), on the device that is current.

    The program is one that `can_do` takes.
    """
    count, height, width, _ = pixels.shape
    if height * width * 3 >= 1 << 31:
        raise ValueError(f"images of {width} x {height} pixels are too large for these kernels")
    if not count:
        return
    operations, chains = _merged(program)
    style, current, spare = program.style, pixels, [torch.empty_like(pixels) for _ in range(2)]
    seeds = upload(program.seeds.astype(np.uint64).view(np.int32).reshape(count, 2), pixels.device)
    for step in range(operations.shape[1]):
        if not operations[:, step].any():
            continue
        packed = _pack(operations[:, step], program.arguments[:, step], chains, step)
        tables = _tables(current, operations[:, step], program.arguments[:, step])
        following = spare[0] if current is not spare[0] else spare[1]
        step_kernel[(count * triton.cdiv(height * width, _BLOCK),)](
            current,
            upload(packed, pixels.device),
            seeds,
            tables,
            following,
            step << 8,
            *style.fill,
            *style.noise_mean,
            *style.noise_deviation,
            HEIGHT=height,
            WIDTH=width,
            BILINEAR=style.bilinear,
            BLOCK=_BLOCK,
        )
        current = following
    if current is not out:
        out.copy_(current)


def _merged(program: Program) -> tuple[np.ndarray, dict[tuple[int, int], list[np.ndarray]]]:
    """Operations with affine ones that follow each other put into the last of them, and the matrices of each, those of
    the last operation first."""
    operations, chains = program.operations.copy(), dict[tuple[int, int], list[np.ndarray]]()
    for image, row in enumerate(program.operations):
        waiting: int | None = None
        for step in np.flatnonzero(row).tolist():
            if row[step] != Op.AFFINE:
                waiting = None
                continue
            earlier = chains.get((image, waiting), []) if waiting is not None else []
            if waiting is not None and len(earlier) < _CHAIN:
                operations[image, waiting] = Op.NOTHING
                del chains[image, waiting]
            else:
                earlier = []
            chains[image, step] = [program.arguments[image, step, :6], *earlier]
            waiting = step
    return operations, chains


def _pack(
    operations: np.ndarray, arguments: np.ndarray, chains: dict[tuple[int, int], list[np.ndarray]], step: int
) -> np.ndarray:
    """(B, 48) float32: a row of parameters for each image."""
    packed = np.zeros((len(operations), _FIELDS.value), np.float32)
    packed[:, 0] = [_CODES.get(Op(code), _COPY.value) for code in operations.tolist()]
    packed[:, _ARGUMENTS.value : _ARGUMENTS.value + 8] = arguments
    for image in np.flatnonzero(operations == Op.AFFINE).tolist():
        matrices = np.concatenate(chains[image, step])
        packed[image, _LENGTH.value] = len(chains[image, step])
        packed[image, _MATRICES.value : _MATRICES.value + len(matrices)] = matrices
    return packed


def _tables(pixels: Tensor, operations: np.ndarray, arguments: np.ndarray) -> Tensor:
    """(B, 3, 256) uint8 on the device, of the images whose operation is a table."""
    known = np.zeros((len(operations), 3, 256), np.uint8)
    for image in np.flatnonzero(np.isin(operations, list(TABLE_OPS))).tolist():
        known[image] = known_table(Op(int(operations[image])), arguments[image].astype(np.float64).tolist())
    tables = upload(known, pixels.device)
    for op, measure in ((Op.CONTRAST, _contrast), (Op.AUTOCONTRAST, _autocontrast), (Op.EQUALIZE, _equalize)):
        chosen = np.flatnonzero(operations == op)
        if len(chosen):
            index = upload(chosen, pixels.device)
            tables[index] = measure(pixels[index], upload(arguments[chosen, 0].astype(np.float32), pixels.device))
    return tables


def _levels(device: torch.device) -> Tensor:
    return torch.arange(256, device=device)


def _contrast(pixels: Tensor, factor: Tensor) -> Tensor:
    values = pixels.to(torch.int32)
    grey = (values[..., 0] * 19595 + values[..., 1] * 38470 + values[..., 2] * 7471 + 32768) >> 16
    mean = (grey.sum((1, 2)).double() / (pixels.shape[1] * pixels.shape[2]) + 0.5).floor().float()[:, None]
    blended = mean + (_levels(pixels.device) - mean) * factor[:, None]
    return blended.clamp(0, 255).to(torch.uint8)[:, None].expand(-1, 3, -1)


def _histograms(pixels: Tensor) -> Tensor:
    """(B, 3, 256) int64."""
    values = pixels.flatten(1, 2).transpose(1, 2).to(torch.int64)
    return torch.zeros((*values.shape[:2], 256), dtype=torch.int64, device=pixels.device).scatter_add_(
        2, values, torch.ones_like(values)
    )


def _autocontrast(pixels: Tensor, _: Tensor) -> Tensor:
    low, high = (bound(pixels.flatten(1, 2), 1).double() for bound in (torch.amin, torch.amax))
    scale = (255.0 / (high - low).clamp(min=1))[..., None]
    levels = _levels(pixels.device).double()
    stretched = (levels * scale - low[..., None] * scale).clamp(0, 255)
    return torch.where((high > low)[..., None], stretched, levels).to(torch.uint8)


def _equalize(pixels: Tensor, _: Tensor) -> Tensor:
    counts = _histograms(pixels)
    last = counts.gather(2, pixels.flatten(1, 2).amax(1).long()[..., None])
    step = (counts.sum(2, keepdim=True) - last) // 255
    before = counts.cumsum(2) - counts
    levels = _levels(pixels.device).expand_as(counts)
    spread = ((step // 2 + before) // step.clamp(min=1)).clamp(max=255)
    return torch.where((step > 0) & ((counts > 0).sum(2, keepdim=True) > 1), spread, levels).to(torch.uint8)
