"""AdamW and LAMB over all weights at once: clipping, update and moving average in one read and one write of each.

AdamW takes up to three kernels, however many tensors there are:

- `norm_kernel`, only where gradients are clipped: sums of squares of each chunk (reads 4 bytes a weight),
- `decide_kernel`, a single program: adds them up in a fixed order, counts steps, works out bias corrections in float64,
- `adamw_kernel`: reads gradient, weight, two moments and average, writes the last four (36 bytes a weight in float32).

LAMB needs norms of whole tensors of what it is about to subtract, so it goes over them twice. `lamb_moments_kernel`
moves the moments and leaves sums of squares of weights and updates, `lamb_ratios_kernel` adds those up for each tensor,
and `lamb_apply_kernel` works the update out anew. To keep it would be 4 bytes a weight written and 4 read, to read the
moments again is 8, which is as much, and takes no memory.

Nothing is asked of the device by the host, and there are no atomics: results repeat bit for bit.
"""

import triton
import triton.language as tl

from fasttrain.kernels.triton.update_parts import (
    CHUNKS,
    DECISIONS,
    FIRST,
    KIND,
    MOVES,
    OWN_ADAPTS,
    OWN_DECAY,
    OWN_EPS,
    OWN_FOLLOW,
    OWN_LR,
    ROW,
    TYPES,
    UNBIAS,
    UNROOT,
    VALUES,
    addresses,
    decide,
    direction,
    followed,
    load,
    moved,
    rule_of,
    span,
    store,
    whole_blocks,
)
from fasttrain.kernels.triton.update_tables import Tables
from fasttrain.kernels.weight_update import Clipping, Scaling

# --- AdamW -----------------------------------------------------------------------------------------------------------


@triton.jit
def _adamw_block(
    at, rule, moves, lr, shrink, unbias, unroot, eps, share, place, end, AVERAGES: tl.constexpr, WHOLE: tl.constexpr
):
    values, gradients, means, squares, averages = at
    value = load(values, place, end, WHOLE)
    if AVERAGES:
        average = load(averages, place, end, WHOLE)
    if moves:
        gradient = load(gradients, place, end, WHOLE)
        mean, square = load(means, place, end, WHOLE), load(squares, place, end, WHOLE)
        mean, square = moved(rule, gradient, mean, square)
        value -= value * shrink
        value -= lr * direction(unbias, unroot, eps, mean, square)
        store(means, place, mean, end, WHOLE)
        store(squares, place, square, end, WHOLE)
        store(values, place, value, end, WHOLE)
    if AVERAGES:
        store(averages, place, followed(average, value, share), end, WHOLE)


@triton.jit
def adamw_kernel(
    tensors,
    owners,
    decisions,
    NUMBER: tl.constexpr,
    TYPE: tl.constexpr,
    AVERAGES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The update of a chunk, and its average's, of tensors whose gradient has the type TYPE."""
    chunk = tl.program_id(0)
    tensor = tl.load(owners + chunk).to(tl.int64)
    own, row = tensors + tensor * ROW, decisions + tensor * DECISIONS
    if tl.load(own + KIND) == NUMBER:
        at, rule, moves = addresses(own, TYPE), rule_of(row), tl.load(row + MOVES) != 0.0
        lr, eps, share = tl.load(row + OWN_LR), tl.load(row + OWN_EPS), tl.load(row + OWN_FOLLOW)
        unbias, unroot = tl.load(row + UNBIAS), tl.load(row + UNROOT)
        shrink = lr * tl.load(row + OWN_DECAY)
        begin, end = span(own, chunk)
        whole = whole_blocks(own, begin, end, BLOCK)
        for block in range(whole):
            place = begin + block * BLOCK + tl.arange(0, BLOCK)
            _adamw_block(at, rule, moves, lr, shrink, unbias, unroot, eps, share, place, end, AVERAGES, True)
        for start in range(begin + whole * BLOCK, end, BLOCK):
            place = start + tl.arange(0, BLOCK)
            _adamw_block(at, rule, moves, lr, shrink, unbias, unroot, eps, share, place, end, AVERAGES, False)


# --- LAMB ------------------------------------------------------------------------------------------------------------


@triton.jit
def _lamb_moments_block(at, rule, unbias, unroot, eps, decay, place, end, WHOLE: tl.constexpr):
    values, gradients, means, squares, _ = at
    value, gradient = load(values, place, end, WHOLE), load(gradients, place, end, WHOLE)
    mean, square = load(means, place, end, WHOLE), load(squares, place, end, WHOLE)
    mean, square = moved(rule, gradient, mean, square)
    store(means, place, mean, end, WHOLE)
    store(squares, place, square, end, WHOLE)
    update = direction(unbias, unroot, eps, mean, square) + value * decay
    if not WHOLE:
        update = tl.where(place < end, update, 0.0)
    return value * value, update * update


@triton.jit
def lamb_moments_kernel(
    tensors,
    owners,
    decisions,
    partials,
    chunk_count,
    NUMBER: tl.constexpr,
    TYPE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The moments of a chunk, and the sums of squares of its weights and of its update."""
    chunk = tl.program_id(0)
    tensor = tl.load(owners + chunk).to(tl.int64)
    own, row = tensors + tensor * ROW, decisions + tensor * DECISIONS
    if (tl.load(own + KIND) == NUMBER) & (tl.load(row + MOVES) != 0.0):
        at, rule = addresses(own, TYPE), rule_of(row)
        unbias, unroot = tl.load(row + UNBIAS), tl.load(row + UNROOT)
        eps, decay = tl.load(row + OWN_EPS), tl.load(row + OWN_DECAY)
        begin, end = span(own, chunk)
        whole = whole_blocks(own, begin, end, BLOCK)
        values, updates = tl.zeros([BLOCK], tl.float32), tl.zeros([BLOCK], tl.float32)
        for block in range(whole):
            place = begin + block * BLOCK + tl.arange(0, BLOCK)
            value, update = _lamb_moments_block(at, rule, unbias, unroot, eps, decay, place, end, True)
            values += value
            updates += update
        for start in range(begin + whole * BLOCK, end, BLOCK):
            place = start + tl.arange(0, BLOCK)
            value, update = _lamb_moments_block(at, rule, unbias, unroot, eps, decay, place, end, False)
            values += value
            updates += update
        tl.store(partials + chunk, tl.sum(values, 0))
        tl.store(partials + chunk_count + chunk, tl.sum(updates, 0))


@triton.jit
def lamb_ratios_kernel(tensors, decisions, partials, ratios, chunk_count, BLOCK: tl.constexpr):
    """||weights|| / ||update|| of a tensor, or 1."""
    tensor = tl.program_id(0)
    own, row = tensors + tensor.to(tl.int64) * ROW, decisions + tensor * DECISIONS
    ratio = 1.0
    if (tl.load(row + MOVES) != 0.0) & (tl.load(row + OWN_ADAPTS) != 0.0):
        first, count = tl.load(own + FIRST), tl.load(own + CHUNKS)
        values, updates = tl.zeros([BLOCK], tl.float32), tl.zeros([BLOCK], tl.float32)
        for start in range(0, count, BLOCK):
            number = start + tl.arange(0, BLOCK)
            at = partials + first + number
            values += tl.load(at, mask=number < count, other=0.0)
            updates += tl.load(at + chunk_count, mask=number < count, other=0.0)
        weight, update = tl.sum(values, 0), tl.sum(updates, 0)
        if (weight > 0.0) & (update > 0.0):
            ratio = tl.sqrt_rn(weight) / tl.sqrt_rn(update)
    tl.store(ratios + tensor, ratio)


@triton.jit
def _lamb_apply_block(
    at, moves, rate, unbias, unroot, eps, decay, share, place, end, AVERAGES: tl.constexpr, WHOLE: tl.constexpr
):
    values, _, means, squares, averages = at
    value = load(values, place, end, WHOLE)
    if AVERAGES:
        average = load(averages, place, end, WHOLE)
    if moves:
        mean, square = load(means, place, end, WHOLE), load(squares, place, end, WHOLE)
        value -= rate * (direction(unbias, unroot, eps, mean, square) + value * decay)
        store(values, place, value, end, WHOLE)
    if AVERAGES:
        store(averages, place, followed(average, value, share), end, WHOLE)


@triton.jit
def lamb_apply_kernel(tensors, owners, decisions, ratios, AVERAGES: tl.constexpr, BLOCK: tl.constexpr):
    """Subtract the update of a chunk, scaled by its tensor's ratio; move the average."""
    chunk = tl.program_id(0)
    tensor = tl.load(owners + chunk).to(tl.int64)
    own, row = tensors + tensor * ROW, decisions + tensor * DECISIONS
    at, moves = addresses(own, tl.float32), tl.load(row + MOVES) != 0.0
    rate, share = tl.load(row + OWN_LR) * tl.load(ratios + tensor), tl.load(row + OWN_FOLLOW)
    unbias, unroot = tl.load(row + UNBIAS), tl.load(row + UNROOT)
    eps, decay = tl.load(row + OWN_EPS), tl.load(row + OWN_DECAY)
    begin, end = span(own, chunk)
    whole = whole_blocks(own, begin, end, BLOCK)
    for block in range(whole):
        place = begin + block * BLOCK + tl.arange(0, BLOCK)
        _lamb_apply_block(at, moves, rate, unbias, unroot, eps, decay, share, place, end, AVERAGES, True)
    for start in range(begin + whole * BLOCK, end, BLOCK):
        place = start + tl.arange(0, BLOCK)
        _lamb_apply_block(at, moves, rate, unbias, unroot, eps, decay, share, place, end, AVERAGES, False)


# --- launching -------------------------------------------------------------------------------------------------------


def adamw(tables: Tables, clipping: Clipping | None = None, scaling: Scaling | None = None) -> None:
    """A step of AdamW as `tables` say, on the device that is current."""
    if not tables.chunks:
        return
    decide(tables, clipping, scaling)
    for kind in tables.kinds:
        adamw_kernel[(tables.chunks,)](
            tables.tensors,
            tables.owners,
            tables.decisions,
            NUMBER=kind,
            TYPE=TYPES[kind],
            AVERAGES=tables.averaging,
            BLOCK=VALUES,
        )


def lamb(tables: Tables, clipping: Clipping | None = None, scaling: Scaling | None = None) -> None:
    """A step of LAMB as `tables` say, on the device that is current."""
    if not tables.chunks:
        return
    decide(tables, clipping, scaling)
    where, partials = (tables.tensors, tables.owners, tables.decisions), tables.partials
    for kind in tables.kinds:
        types = {"NUMBER": kind, "TYPE": TYPES[kind]}
        lamb_moments_kernel[(tables.chunks,)](*where, partials, tables.chunks, **types, BLOCK=VALUES)
    lamb_ratios_kernel[(tables.count,)](
        tables.tensors, tables.decisions, partials, tables.ratios, tables.chunks, BLOCK=VALUES
    )
    lamb_apply_kernel[(tables.chunks,)](*where, tables.ratios, AVERAGES=tables.averaging, BLOCK=VALUES)
