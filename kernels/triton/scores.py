"""Passes over a score matrix on a GPU: column sums of row softmaxes, and the final assignment.

A row stays in registers between the sum of its exponentials and their way into the column sums, so that the matrix is
read once and an entry costs one exponential. Columns come as two blocks, whose sizes are powers of two as Triton wants
them, but whose sum is near the number of columns: lanes that hold nothing would cost exponentials too. Each program
keeps its own column sums; they are added up in a fixed order, without atomics, so that results repeat bit for bit. The
number of columns is a constant, so that the compiler sees where rows begin and reads 16 bytes a lane.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

LOG2_E, LN_2 = 1.4426950408889634, 0.6931471805599453
MOST_IN_REGISTERS = 16384  # columns; beyond, a row is read twice
_WIDE_BLOCK, _ASSIGN_BLOCK, _WIDE_ROWS = 1024, 4096, 64
_PROGRAMS_OF_INTERPRETER = 3

_EMPTY = tl.constexpr(float("-inf"))


@triton.jit
def _piece(scores, offsets, row, last, column, scale, C: tl.constexpr):
    """Exponents of rows (base 2) at columns, -inf where there is none."""
    there = (row < last)[:, None] & (column < C)[None, :]
    at = scores + row.to(tl.int64)[:, None] * C + column[None, :]
    score = tl.load(at, mask=there, other=_EMPTY).to(tl.float32)
    shift = tl.load(offsets + column, mask=column < C, other=_EMPTY)
    return score * scale + shift[None, :]


@triton.jit
def colsum_kernel(
    scores, offsets, partials, logs, N, scale, LONG,
    C: tl.constexpr, ROWS: tl.constexpr, HEAD: tl.constexpr, TAIL: tl.constexpr,
):  # fmt: skip
    """Column sums of LONG rows, and the sum of their log-normalisers (base 2)."""
    first = tl.program_id(0) * LONG
    last = tl.minimum(first + LONG, N)
    head, tail = tl.arange(0, HEAD), HEAD + tl.arange(0, TAIL)
    head_sums, tail_sums = tl.zeros([HEAD], tl.float32), tl.zeros([TAIL], tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    for start in range(first, last, ROWS):
        row = start + tl.arange(0, ROWS)
        a = _piece(scores, offsets, row, last, head, scale, C)
        b = _piece(scores, offsets, row, last, tail, scale, C)
        most = tl.maximum(tl.max(a, 1), tl.max(b, 1))
        most = tl.where(most == _EMPTY, 0.0, most)
        a, b = tl.exp2(a - most[:, None]), tl.exp2(b - most[:, None])
        normaliser = tl.where(row < last, tl.sum(a, 1) + tl.sum(b, 1), 1.0)
        weight = tl.where(row < last, 1.0 / normaliser, 0.0)
        head_sums += tl.sum(a * weight[:, None], 0)
        tail_sums += tl.sum(b * weight[:, None], 0)
        total += tl.where(row < last, most + tl.log2(normaliser), 0.0)
    own = partials + tl.program_id(0).to(tl.int64) * C
    tl.store(own + head, head_sums, mask=head < C)
    tl.store(own + tail, tail_sums, mask=tail < C)
    tl.store(logs + tl.program_id(0), tl.sum(total, 0))


@triton.jit
def normaliser_kernel(scores, offsets, normalisers, N, scale, C: tl.constexpr, BLOCK: tl.constexpr):
    """The log-normaliser (base 2) of a row of any length."""
    row = tl.program_id(0) + tl.arange(0, 1)
    most, total = tl.full([1], _EMPTY, tl.float32), tl.zeros([1], tl.float32)
    for start in range(0, C, BLOCK):
        value = _piece(scores, offsets, row, N, start + tl.arange(0, BLOCK), scale, C)
        greater = tl.maximum(most, tl.max(value, 1))
        base = tl.where(greater == _EMPTY, 0.0, greater)
        total = total * tl.exp2(most - base) + tl.sum(tl.exp2(value - base[:, None]), 1)
        most = greater
    tl.store(normalisers + row, most + tl.log2(total))


@triton.jit
def wide_colsum_kernel(
    scores, offsets, normalisers, partials, N, scale, LONG, C: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr
):
    """Column sums of a block of columns over LONG rows whose normalisers are known."""
    first = tl.program_id(1) * LONG
    last = tl.minimum(first + LONG, N)
    column = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    sums = tl.zeros([BLOCK], tl.float32)
    for start in range(first, last, ROWS):
        row = start + tl.arange(0, ROWS)
        value = _piece(scores, offsets, row, last, column, scale, C)
        normaliser = tl.load(normalisers + row, mask=row < last, other=0.0)
        sums += tl.sum(tl.exp2(value - normaliser[:, None]), 0)
    tl.store(partials + tl.program_id(1).to(tl.int64) * C + column, sums, mask=column < C)


@triton.jit
def assign_kernel(scores, offsets, label, probability, margin, normaliser, scale, C: tl.constexpr, BLOCK: tl.constexpr):
    """A row's best column, its share, its lead, and the log-normaliser (natural); `offsets` are those of the scores."""
    row = tl.program_id(0).to(tl.int64)
    first, second = tl.full([], _EMPTY, tl.float32), tl.full([], _EMPTY, tl.float32)
    total, best = tl.zeros([], tl.float32), tl.zeros([], tl.int32)
    for start in range(0, C, BLOCK):
        column = start + tl.arange(0, BLOCK)
        value = tl.load(scores + row * C + column, mask=column < C, other=_EMPTY).to(tl.float32)
        value += tl.load(offsets + column, mask=column < C, other=_EMPTY)
        most = tl.max(value, 0)
        where = tl.min(tl.where(value == most, column, C), 0)
        rest = tl.max(tl.where(column == where, _EMPTY, value), 0)
        greater = tl.maximum(first, most)
        base = tl.where(greater == _EMPTY, 0.0, greater)
        total = total * tl.exp2((first - base) * scale) + tl.sum(tl.exp2((value - base) * scale), 0)
        second = tl.maximum(tl.minimum(first, most), tl.maximum(second, rest))
        best = tl.where(most > first, where, best)
        first = greater
    tl.store(label + row, best)
    tl.store(probability + row, 1.0 / total)
    tl.store(margin + row, first - second)
    tl.store(normaliser + row, (first * scale + tl.log2(total)) * 0.6931471805599453)


# --- launching -------------------------------------------------------------------------------------------------------


def softmax_colsum(scores: Tensor, offsets: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Column sums of ``softmax(scores / temperature + offsets)`` by row, and the sum of the rows' log-normalisers.

    Args:
        scores: (N, C) float16, bfloat16 or float32, contiguous, on the device that is current.
        offsets: (C,) float64 there.

    Returns:
        (C,) and () float64 there.
    """
    rows, columns = scores.shape
    shifts, scale = (offsets * LOG2_E).float(), LOG2_E / temperature
    programs = min(rows, _programs(scores.device))
    if not rows:
        return offsets.new_zeros(columns), offsets.new_zeros(())
    if columns > MOST_IN_REGISTERS:
        return _wide(scores, shifts, scale, programs)
    head, tail = halves(columns)
    together = 1 << (max(1, min(8, 8192 // (head + tail))).bit_length() - 1)
    long = triton.cdiv(rows, programs * together) * together
    programs = triton.cdiv(rows, long)
    partials, logs = shifts.new_empty(programs, columns), shifts.new_empty(programs)
    colsum_kernel[(programs,)](
        scores, shifts, partials, logs, rows, scale, long, C=columns, ROWS=together, HEAD=head, TAIL=tail,
        num_warps=warps(head + tail),
    )  # fmt: skip
    return partials.sum(0, dtype=torch.float64), logs.sum(dtype=torch.float64) * LN_2


def halves(columns: int) -> tuple[int, int]:
    """Two powers of two that together cover the columns with few lanes to spare; each at least 16."""
    head = max(16, triton.next_power_of_2(columns + 1) // 2)
    return head, max(16, triton.next_power_of_2(max(columns - head, 1)))


def warps(lanes: int) -> int:
    """Warps of a program that holds so many columns."""
    return max(4, min(16, triton.next_power_of_2(lanes) // 512))


def _programs(device: torch.device) -> int:
    if device.type != "cuda":
        return _PROGRAMS_OF_INTERPRETER
    return 2 * torch.cuda.get_device_properties(device).multi_processor_count


def _wide(scores: Tensor, shifts: Tensor, scale: float, programs: int) -> tuple[Tensor, Tensor]:
    rows, columns = scores.shape
    normalisers = shifts.new_empty(rows)
    normaliser_kernel[(rows,)](scores, shifts, normalisers, rows, scale, C=columns, BLOCK=_ASSIGN_BLOCK, num_warps=8)
    blocks = triton.cdiv(columns, _WIDE_BLOCK)
    long = max(_WIDE_ROWS, triton.cdiv(rows, max(1, 4 * programs // blocks)))
    parts = triton.cdiv(rows, long)
    partials = shifts.new_empty(parts, columns)
    wide_colsum_kernel[(blocks, parts)](
        scores, shifts, normalisers, partials, rows, scale, long, C=columns, ROWS=4, BLOCK=_WIDE_BLOCK
    )
    return partials.sum(0, dtype=torch.float64), normalisers.sum(dtype=torch.float64) * LN_2


def assign(scores: Tensor, offsets: Tensor, temperature: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Label int32, probability, margin and log-normaliser float32, each (N,); arguments as of `softmax_colsum`."""
    rows, columns = scores.shape
    label = torch.empty(rows, dtype=torch.int32, device=scores.device)
    numbers = torch.empty(3, rows, device=scores.device)
    if rows:
        block = min(_ASSIGN_BLOCK, max(16, triton.next_power_of_2(columns)))
        values, scale = (offsets * temperature).float(), LOG2_E / temperature
        assign_kernel[(rows,)](scores, values, label, *numbers, scale, C=columns, BLOCK=block, num_warps=warps(block))
    return label, *numbers
