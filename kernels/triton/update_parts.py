"""Parts of the kernels that update weights: a chunk's tensor, reading and writing it, and what each step decides."""

import triton
import triton.language as tl

from fasttrain.kernels.triton import update_tables as columns
from fasttrain.kernels.triton.update_tables import Tables
from fasttrain.kernels.weight_update import Clipping, Scaling

VALUES = 1024  # values at a time: with 4 warps, two vectors of 16 bytes a thread and tensor
_LENGTH = tl.constexpr(columns.CHUNK)
TYPES = (tl.float32, tl.bfloat16)  # by `columns.KINDS`
_TENSORS_AT_ONCE = 128  # that the deciding program works on

ROW, _RATES = tl.constexpr(columns.TENSOR_COLUMNS), tl.constexpr(columns.RATE_COLUMNS)
DECISIONS = tl.constexpr(columns.DECISIONS)
_VALUE, _GRADIENT = tl.constexpr(columns.VALUE), tl.constexpr(columns.GRADIENT)
_MEAN, _SQUARE = tl.constexpr(columns.MEAN), tl.constexpr(columns.SQUARE)
_AVERAGE, _SIZE = tl.constexpr(columns.AVERAGE), tl.constexpr(columns.SIZE)
_GROUP, KIND = tl.constexpr(columns.GROUP), tl.constexpr(columns.KIND)
_ALIGNED = tl.constexpr(columns.ALIGNED)
FIRST, CHUNKS = tl.constexpr(columns.FIRST), tl.constexpr(columns.CHUNKS)
_LR, _BETA1, _BETA2 = tl.constexpr(columns.LR), tl.constexpr(columns.BETA1), tl.constexpr(columns.BETA2)
_LOG1, _LOG2 = tl.constexpr(columns.LOG1), tl.constexpr(columns.LOG2)
_EPS, _DECAY = tl.constexpr(columns.EPS), tl.constexpr(columns.DECAY)
_ADAPTS, _FOLLOW = tl.constexpr(columns.ADAPTS), tl.constexpr(columns.FOLLOW)

# What is decided for a tensor: whether it moves; the factor of its gradient; shares of new gradients, old squares and
# new squares in the moments; the inverses of the bias corrections; and what its group's rates are.
MOVES, _FACTOR, _NEW1, _OLD2, _NEW2, UNBIAS, UNROOT = (tl.constexpr(number) for number in range(7))
OWN_LR, OWN_EPS, OWN_DECAY, OWN_ADAPTS, OWN_FOLLOW = (tl.constexpr(number) for number in range(7, 12))


# --- reading and writing ---------------------------------------------------------------------------------------------


@triton.jit
def _address(own, COLUMN: tl.constexpr, TYPE: tl.constexpr):
    return tl.load(own + COLUMN).to(tl.pointer_type(TYPE))


@triton.jit
def load(pointer, place, end, WHOLE: tl.constexpr):
    """Values from `place` on. Whole blocks are those of aligned tensors: 16 bytes at a time, and no masks."""
    if WHOLE:
        value = tl.load(tl.multiple_of(pointer + place, 16))
    else:
        value = tl.load(pointer + place, mask=place < end, other=0.0)
    return value.to(tl.float32)


@triton.jit
def store(pointer, place, value, end, WHOLE: tl.constexpr):
    if WHOLE:
        tl.store(tl.multiple_of(pointer + place, 16), value)
    else:
        tl.store(pointer + place, value, mask=place < end)


@triton.jit
def span(own, chunk):
    """Where the chunk begins and ends in its tensor, in values."""
    begin = (chunk - tl.load(own + FIRST)) * _LENGTH
    end = tl.minimum(begin + _LENGTH, tl.load(own + _SIZE))
    return begin, end


@triton.jit
def whole_blocks(own, begin, end, BLOCK: tl.constexpr):
    """How many blocks of the chunk can be read as vectors."""
    return tl.where(tl.load(own + _ALIGNED) != 0, (end - begin) // BLOCK, 0).to(tl.int32)


# --- what to do ------------------------------------------------------------------------------------------------------


@triton.jit
def _sum_of_squares(gradient, place, end, factor, WHOLE: tl.constexpr):
    value = load(gradient, place, end, WHOLE) * factor
    return value * value


@triton.jit
def norm_kernel(
    tensors,
    owners,
    scale,
    partials,
    NUMBER: tl.constexpr,
    TYPE: tl.constexpr,
    SCALED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Sum of the squares of a chunk's gradient, of tensors whose gradient has the type TYPE; 0 where there is none."""
    chunk = tl.program_id(0)
    own = tensors + tl.load(owners + chunk).to(tl.int64) * ROW
    if tl.load(own + KIND) == NUMBER:
        factor = 1.0
        if SCALED:
            factor = 1.0 / tl.load(scale)
        total = tl.zeros([BLOCK], tl.float32)
        if tl.load(own + _GRADIENT) != 0:
            gradient = _address(own, _GRADIENT, TYPE)
            begin, end = span(own, chunk)
            whole = whole_blocks(own, begin, end, BLOCK)
            for block in range(whole):
                total += _sum_of_squares(gradient, begin + block * BLOCK + tl.arange(0, BLOCK), end, factor, True)
            for start in range(begin + whole * BLOCK, end, BLOCK):
                total += _sum_of_squares(gradient, start + tl.arange(0, BLOCK), end, factor, False)
        tl.store(partials + chunk, tl.sum(total, 0))


@triton.jit
def decide_kernel(
    tensors,
    rates,
    steps,
    partials,
    scale,
    found_inf,
    decisions,
    tensor_count,
    chunk_count,
    norm_limit,
    norm_floor,
    CLIPS: tl.constexpr,
    SCALED: tl.constexpr,
    BLOCK: tl.constexpr,
    TENSORS: tl.constexpr,
):
    """The factor of all gradients; and of each tensor whether it moves, its step's number and what follows from it."""
    factor = 1.0
    infinite = tl.zeros([TENSORS], tl.float32)
    if SCALED:
        factor = 1.0 / tl.load(scale)
        infinite += tl.load(found_inf)
    if CLIPS:
        total = tl.zeros([BLOCK], tl.float32)
        for start in range(0, chunk_count, BLOCK):
            number = start + tl.arange(0, BLOCK)
            total += tl.load(partials + number, mask=number < chunk_count, other=0.0)
        norm = tl.sqrt_rn(tl.sum(total, 0)) + norm_floor
        # Written so that a norm that is no number makes gradients that are none, as torch does.
        factor = tl.where(norm <= norm_limit, factor, factor * (norm_limit / norm))
    for start in range(0, tensor_count, TENSORS):
        number = start + tl.arange(0, TENSORS)
        there = number < tensor_count
        own = tensors + number.to(tl.int64) * ROW
        moves = (infinite == 0.0) & (tl.load(own + _GRADIENT, mask=there, other=0) != 0)
        step = tl.load(steps + number, mask=there, other=0.0) + tl.where(moves, 1.0, 0.0)
        tl.store(steps + number, step, mask=there)
        rate = rates + tl.load(own + _GROUP, mask=there, other=0) * _RATES
        t = tl.maximum(step, 1.0).to(tl.float64)
        to = decisions + number * DECISIONS
        tl.store(to + MOVES, tl.where(moves, 1.0, 0.0), mask=there)
        tl.store(to + _FACTOR, tl.where(moves, factor, 0.0), mask=there)
        beta2 = tl.load(rate + _BETA2, mask=there, other=0.0)
        _decide(to + _NEW1, 1.0 - tl.load(rate + _BETA1, mask=there, other=0.0), there)
        _decide(to + _OLD2, beta2, there)
        _decide(to + _NEW2, 1.0 - beta2, there)
        _decide(to + UNBIAS, 1.0 / (1.0 - tl.exp(tl.load(rate + _LOG1, mask=there, other=-1.0) * t)), there)
        _decide(to + UNROOT, 1.0 / tl.sqrt(1.0 - tl.exp(tl.load(rate + _LOG2, mask=there, other=-1.0) * t)), there)
        _decide(to + OWN_LR, tl.load(rate + _LR, mask=there, other=0.0), there)
        _decide(to + OWN_EPS, tl.load(rate + _EPS, mask=there, other=0.0), there)
        _decide(to + OWN_DECAY, tl.load(rate + _DECAY, mask=there, other=0.0), there)
        _decide(to + OWN_ADAPTS, tl.load(rate + _ADAPTS, mask=there, other=0.0), there)
        _decide(to + OWN_FOLLOW, tl.load(rate + _FOLLOW, mask=there, other=0.0), there)


@triton.jit
def _decide(to, value, there):
    tl.store(to, value.to(tl.float32), mask=there)


# --- the moments -----------------------------------------------------------------------------------------------------


@triton.jit
def addresses(own, TYPE: tl.constexpr):
    """Of weight, gradient, mean, square and average."""
    value, average = _address(own, _VALUE, tl.float32), _address(own, _AVERAGE, tl.float32)
    mean, square = _address(own, _MEAN, tl.float32), _address(own, _SQUARE, tl.float32)
    return value, _address(own, _GRADIENT, TYPE), mean, square, average


@triton.jit
def rule_of(row):
    """How the moments move: factor of the gradient, shares of new gradient, old square and new square."""
    return tl.load(row + _FACTOR), tl.load(row + _NEW1), tl.load(row + _OLD2), tl.load(row + _NEW2)


@triton.jit
def moved(rule, gradient, mean, square):
    """The moments with the gradient taken into them."""
    factor, new1, old2, new2 = rule
    gradient = gradient * factor
    return mean + (gradient - mean) * new1, square * old2 + gradient * gradient * new2


@triton.jit
def direction(unbias, unroot, eps, mean, square):
    """Adam's quotient of the unbiased moments."""
    return mean * unbias / (tl.sqrt_rn(square) * unroot + eps)


@triton.jit
def followed(average, value, share):
    """The average, its share of the way to the value; torch's formula of `lerp`, which is exact at a share of 1."""
    way = value - average
    return tl.where(share < 0.5, average + share * way, value - way * (1.0 - share))


# --- launching -------------------------------------------------------------------------------------------------------


def decide(tables: Tables, clipping: Clipping | None, scaling: Scaling | None) -> None:
    scaled = {"SCALED": scaling is not None, "BLOCK": VALUES}
    scale, found_inf = (tables.one, tables.zero) if scaling is None else (scaling.scale, scaling.found_inf)
    if clipping is not None:
        for kind in tables.kinds:
            norm_kernel[(tables.chunks,)](
                tables.tensors, tables.owners, scale, tables.partials, NUMBER=kind, TYPE=TYPES[kind], **scaled
            )
    decide_kernel[(1,)](
        tables.tensors,
        tables.rates,
        tables.weights.steps,
        tables.partials,
        scale,
        found_inf,
        tables.decisions,
        tables.count,
        tables.chunks,
        clipping.norm if clipping is not None else 0.0,
        clipping.floor if clipping is not None else 0.0,
        CLIPS=clipping is not None,
        **scaled,
        TENSORS=_TENSORS_AT_ONCE,
    )
