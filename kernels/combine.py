"""An ensemble in one pass: score tables, each read once, tempered, brought to one space, weighted and added up."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fasttrain.base.process import available_cores
from fasttrain.kernels import combine_plain
from fasttrain.kernels.softmax_colsum import Backend, _native, takes_native

KINDS = ("logits", "log_probs", "probs")


@dataclass(frozen=True)
class Combined:
    """What `combine` finds beside the scores that it writes.

    Attributes:
        label: (n,) int32 column of the largest combined score; the lowest of equals.
        top_classes: (n, top) int32 columns of the largest ones, descending, the lower of equals first; None if no
            `top` was asked for.
        top_values: (n, top) float32 these scores.
    """

    label: np.ndarray
    top_classes: np.ndarray | None
    top_values: np.ndarray | None


def combine(
    tables: Sequence[np.ndarray],
    weights: Sequence[float],
    *,
    space: str,
    kinds: Sequence[str],
    temperatures: Sequence[float] | None = None,
    columns: Sequence[np.ndarray | None] | None = None,
    rows: Sequence[np.ndarray | None] | None = None,
    out: np.ndarray,
    top: int = 0,
    threads: int | None = None,
    backend: Backend | None = None,
) -> Combined:
    """Write ``sum_m weights[m] * f(tables[m])`` into `out`, f being softmax or log-softmax of ``scores / temperature``.

    A stored probability of 0 counts as the smallest number that its type can hold where its logarithm is needed. A
    table of weight 0 is not read. In log_probs space the sum is normalised, so that each row's probabilities add up
    to 1 (a row without a class that all tables hold possible is left as -inf throughout).

    Args:
        tables: M arrays (n, C) float16 or float32, C-contiguous; they may be read-only, such as mapped files.
        weights: of each, at least 0; used as they are.
        space: ``logits`` (of logits alone; nothing is normalised), ``probs`` or ``log_probs``.
        kinds: what each holds: ``logits``, ``log_probs`` or ``probs``.
        temperatures: of each, above 0; None for 1 throughout.
        columns: of each the column (C,) that becomes column j, or None for j itself.
        rows: of each the row (n,) that becomes row i, or None for i itself; tables with rows may be of any length.
        out: (n, C) float32 or float16, C-contiguous.
        top: so many best classes of each row, 0 to C.
        threads: at most so many; None for one a core. Results are the same bits with any number.
        backend: ``native`` (C++) or ``plain`` (NumPy); None for the faster one that is there.

    Returns:
        Labels and best classes of the scores as float32, whatever the type of `out`.

    Raises:
        ValueError: arguments do not fit together.
    """
    count = len(tables)
    temperatures = [1.0] * count if temperatures is None else temperatures
    columns = [None] * count if columns is None else columns
    rows = [None] * count if rows is None else rows
    check(tables, weights, space, kinds, temperatures, columns, rows, out, top)
    read = [number for number in range(count) if weights[number]]  # the others' -inf would make NaN
    found: dict[str, Any] = combine_plain.empty(len(out), top)
    parts: dict[str, Any] = {
        "tables": [tables[number] for number in read],
        "weights": [float(weights[number]) for number in read],
        "temperatures": [float(temperatures[number]) for number in read],
        "rows": [rows[number] for number in read],
        "columns": [columns[number] for number in read],
        "space": space,
        "out": out,
    }
    if takes_native(out, backend):
        parts["rows"] = [None if row is None else np.ascontiguousarray(row, np.int64) for row in parts["rows"]]
        parts["columns"] = [None if one is None else np.ascontiguousarray(one, np.int32) for one in parts["columns"]]
        is_probs = [kinds[number] == "probs" for number in read]
        _native.combine(**parts, is_probs=is_probs, threads=threads or available_cores(), **found)
    else:
        combine_plain.combine(**parts, kinds=[kinds[number] for number in read], **found)
    return Combined(**found) if top else Combined(found["label"], None, None)


def check(
    tables: Sequence[np.ndarray],
    weights: Sequence[float],
    space: str,
    kinds: Sequence[str],
    temperatures: Sequence[float],
    columns: Sequence[np.ndarray | None],
    rows: Sequence[np.ndarray | None],
    out: np.ndarray,
    top: int,
) -> None:
    """Raise a ValueError if arguments do not fit together."""
    if not tables or {len(part) for part in (weights, kinds, temperatures, columns, rows)} != {len(tables)}:
        raise ValueError("weights, kinds, temperatures, columns and rows are one a table, of at least one table")
    if space not in KINDS or not set(kinds) <= set(KINDS):
        raise ValueError(f"the space and the kinds are {', '.join(KINDS)}, not {space!r} and {sorted(set(kinds))}")
    if space == "logits" and set(kinds) != {"logits"}:
        raise ValueError("probabilities cannot become logits; combine in the space probs or log_probs")
    if not (np.isfinite(weights).all() and min(weights) >= 0):
        raise ValueError(f"weights must be numbers of at least 0, not {list(weights)}")
    if not (np.isfinite(temperatures).all() and min(temperatures) > 0):
        raise ValueError(f"temperatures must be above 0, not {list(temperatures)}")
    if out.ndim != 2 or out.dtype not in (np.float16, np.float32) or not out.flags.c_contiguous or not out.shape[1]:
        raise ValueError("out is a C-contiguous (n, C) array of float16 or float32")
    if not 0 <= top <= out.shape[1]:
        raise ValueError(f"the best 0 to {out.shape[1]} classes can be had, not {top}")
    for number, (table, column, row) in enumerate(zip(tables, columns, rows, strict=True)):
        if table.dtype not in (np.float16, np.float32) or not table.flags.c_contiguous:
            raise ValueError(f"table {number + 1} must be C-contiguous float16 or float32, not {table.dtype}")
        if table.shape[1:] != out.shape[1:] or (row is None and len(table) != len(out)):
            raise ValueError(f"table {number + 1} of shape {table.shape} does not fit an out of {out.shape}")
        for name, index, length, limit in (
            ("columns", column, out.shape[1], out.shape[1]),
            ("rows", row, len(out), len(table)),
        ):
            if index is None:
                continue
            if index.shape != (length,) or not np.issubdtype(index.dtype, np.integer):
                raise ValueError(f"{name} of table {number + 1} are ({length},) integers, not {index.shape}")
            if length and not 0 <= index.min() <= index.max() < limit:
                raise ValueError(f"{name} of table {number + 1} must be 0 to {limit - 1}")
