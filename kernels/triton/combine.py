"""An ensemble in one pass on a GPU: each table is read once, what is written is the result.

A row stays in registers while one table after the other is added to it. Sums are float32, in the order of the tables.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from fasttrain.kernels.triton.scores import LOG2_E, MOST_IN_REGISTERS, warps

_EMPTY = tl.constexpr(float("-inf"))
_LN_2 = tl.constexpr(0.6931471805599453)

# What a table's row of the parameters holds: addresses of its scores, rows and columns, as 64-bit integers.
_FIELDS = tl.constexpr(3)


@triton.jit
def _table(
    addresses, numbers, table, row, column,
    C: tl.constexpr, HALF: tl.constexpr, PROBS: tl.constexpr, LOGS: tl.constexpr, PERMUTED: tl.constexpr,
):  # fmt: skip
    """A table's exponents (base 2, tempered) or, of probabilities that need no logarithm, these; -inf or 0 outside."""
    own = addresses + table * _FIELDS
    scores = tl.load(own).to(tl.pointer_type(tl.float16)) if HALF else tl.load(own).to(tl.pointer_type(tl.float32))
    scores = tl.multiple_of(scores, 16)  # as the caller has seen to
    there = column < C
    source = tl.load(tl.load(own + 1).to(tl.pointer_type(tl.int64)) + row)
    place = column
    if PERMUTED:
        place = tl.load(tl.load(own + 2).to(tl.pointer_type(tl.int32)) + column, mask=there, other=0)
    if PROBS:
        score = tl.load(scores + source * C + place, mask=there, other=0.0).to(tl.float32)
        if LOGS:
            score = tl.where(there, tl.log2(tl.maximum(score, tl.load(numbers + 2))), _EMPTY)
            score *= tl.load(numbers + table * 3 + 1) * _LN_2
    else:
        score = tl.load(scores + source * C + place, mask=there, other=_EMPTY).to(tl.float32)
        score *= tl.load(numbers + table * 3 + 1)
    return score


@triton.jit
def combine_kernel(
    addresses, numbers, totals, label, M, C: tl.constexpr, SPACE: tl.constexpr, HALF: tl.constexpr, PROBS: tl.constexpr,
    TEMPERED: tl.constexpr, PERMUTED: tl.constexpr, CONTINUES: tl.constexpr, ENDS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Add M tables of one type and kind to a row of totals; at the end normalise it and find its largest column.

    `numbers` holds of each table its weight, log2(e) / temperature, and the least probability of its type.
    """
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    there = column < C
    place = totals + row * C + column
    total = tl.load(place, mask=there, other=0.0).to(tl.float32) if CONTINUES else tl.zeros([BLOCK], tl.float32)
    for table in range(M):
        value = _table(addresses, numbers, table, row, column, C, HALF, PROBS, SPACE != 1 or TEMPERED, PERMUTED)
        weight = tl.load(numbers + table * 3)
        if SPACE == 1:
            if TEMPERED or not PROBS:
                most = tl.max(value, 0)
                value = tl.exp2(value - tl.where(most == _EMPTY, 0.0, most))
            share = tl.sum(value, 0)
            total += value * (weight / tl.where(share == 0.0, 1.0, share))
        else:
            total += tl.where(there, value, 0.0) * (weight * _LN_2)
    total = tl.where(there, total, _EMPTY)
    if ENDS:
        most = tl.max(total, 0)
        if SPACE == 2:
            base = tl.where(most == _EMPTY, 0.0, most)
            sum_ = tl.sum(tl.exp(total - base), 0)
            total -= base + tl.log(tl.where(sum_ == 0.0, 1.0, sum_))
            most = tl.max(total, 0)
        tl.store(label + row, tl.min(tl.where(total == most, column, C), 0))
    tl.store(place, total.to(totals.dtype.element_ty), mask=there)


# --- launching -------------------------------------------------------------------------------------------------------

SPACES = {"logits": 0, "probs": 1, "log_probs": 2}


def combine(
    tables: list[Tensor],
    weights: list[float],
    kinds: list[str],
    temperatures: list[float],
    rows: list[Tensor],
    columns: list[Tensor | None],
    space: str,
    out: Tensor,
) -> Tensor:
    """As `fasttrain.kernels.combine.combine`, all tensors on the device that is current; labels (n,) int32.

    Args:
        rows, columns: of each table, (n,) int64 and (C,) int32 or None.
        out: (n, C) float32, contiguous; or float16 where all tables have one type and kind.

    Raises:
        ValueError: rows are longer than `MOST_IN_REGISTERS`.
    """
    count, width = out.shape
    if width > MOST_IN_REGISTERS:
        raise ValueError(f"rows of {width} columns are too long for this kernel; it takes {MOST_IN_REGISTERS}")
    label = torch.zeros(count, dtype=torch.int32, device=out.device)
    if not count or not tables:
        out.zero_()
        return label
    groups: dict[tuple[bool, bool, bool, bool], list[int]] = {}
    tables = [table if table.data_ptr() % 16 == 0 else table.clone() for table in tables]
    for number, (table, kind, temperature) in enumerate(zip(tables, kinds, temperatures, strict=True)):
        is_probs = kind == "probs"
        key = (table.dtype == torch.float16, is_probs, is_probs and temperature != 1, columns[number] is not None)
        groups.setdefault(key, []).append(number)
    if len(groups) > 1 and out.dtype != torch.float32:
        raise ValueError("tables of several types or kinds are combined as float32")
    block = max(16, triton.next_power_of_2(width))
    for turn, ((half, is_probs, tempered, permuted), numbers) in enumerate(groups.items()):
        least = torch.finfo(torch.float16 if half else torch.float32).smallest_normal / (1 << (10 if half else 23))
        addresses = [
            [0 if one is None else one.data_ptr() for one in (tables[number], rows[number], columns[number])]
            for number in numbers
        ]
        figures = [[weights[number], LOG2_E / temperatures[number], least] for number in numbers]
        combine_kernel[(count,)](
            torch.tensor(addresses, dtype=torch.int64).to(out.device),
            torch.tensor(figures, dtype=torch.float32).to(out.device),
            out,
            label,
            len(numbers),
            C=width,
            SPACE=SPACES[space],
            HALF=half,
            PROBS=is_probs,
            TEMPERED=tempered,
            PERMUTED=permuted,
            CONTINUES=turn > 0,
            ENDS=turn == len(groups) - 1,
            BLOCK=block,
            num_warps=warps(block),
        )
    return label
