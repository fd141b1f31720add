"""Passes over a score matrix and ensembles: right, and at what share of the speed of a copy of as many bytes."""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from fasttrain.kernels.combine_torch import TorchCombine
from fasttrain.kernels.device_stage import triton_works
from fasttrain.kernels.softmax_colsum import softmax_colsum_dual
from fasttrain.kernels.softmax_colsum_torch import TorchColumnSums
from fasttrain.kernels.softmax_colsum_torch import assign as plain_assign
from fasttrain.kernels.softmax_colsum_torch import softmax_colsum_dual as plain_colsum
from gpu.common import Row, Task, repeated

TABLES = 17
DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}


def scores(task: Task) -> None:
    """Rows of parity, of a pass (ours and plain torch), of the final assignment, and of ensembles of 17 tables."""
    rows, columns = (200, 100) if task.small else (90_000, 5_000)
    for name in DTYPES:
        task.attempt(f"column sums {name}, beside NumPy", partial(_parity, task, name))
    for name, dtype in DTYPES.items():
        task.attempt(f"column sums {name} {rows}x{columns}", partial(_passes, task, rows, columns, dtype, "colsum"))
    task.attempt(f"assignment float16 {rows}x{columns}", partial(_passes, task, rows, columns, torch.float16, "assign"))
    for space in ("probs", "log_probs"):
        label = f"ensemble of {TABLES} float16 in {space}, {rows // 10}x{columns}"
        task.attempt(label, partial(_ensemble, task, rows // 10, columns, space))


def _table(task: Task, rows: int, columns: int, dtype: torch.dtype, seed: int = 0) -> Tensor:
    generator = torch.Generator(task.device).manual_seed(seed)
    table = torch.empty(rows, columns, dtype=dtype, device=task.device)
    for block in table.split(4096):
        block.copy_(torch.randn(block.shape, device=task.device, generator=generator) * 3)
    return table


def _parity(task: Task, name: str) -> Row:
    table = _table(task, 203 if task.small else 5003, 37 if task.small else 1003, DTYPES[name])
    offsets = np.linspace(-1, 1, table.shape[1])
    fast = task.device.type == "cuda" and triton_works(task.device)
    sums, normaliser = TorchColumnSums(table, str(task.device)).dual(offsets, 0.2)
    reference, expected = softmax_colsum_dual(table.double().cpu().numpy(), offsets, 0.2)
    worst = max(float((np.abs(sums - reference) / reference).max()), abs(normaliser / expected - 1))
    by = "triton" if fast else "torch"
    return {"by": by, "difference": worst, "ok": worst < 3e-5 and (fast or task.device.type != "cuda")}


def _passes(task: Task, rows: int, columns: int, dtype: torch.dtype, what: str) -> Row:
    table = _table(task, rows, columns, dtype)
    offsets = torch.linspace(-1, 1, columns, dtype=torch.float64, device=task.device)
    work: Callable[..., object] = plain_colsum if what == "colsum" else plain_assign
    plain = partial(work, table[: max(1, rows // 20)], offsets, 0.2)
    ours = partial(work, table, offsets, 0.2)
    if task.device.type == "cuda":
        from fasttrain.kernels.triton import scores as kernels

        ours = partial(kernels.softmax_colsum if what == "colsum" else kernels.assign, table, offsets, 0.2)
    beside = repeated(plain, task.device, 0.1 if task.small else 0.3)["median"] * 20
    return {**_figures(task, ours, table.numel() * table.element_size()), "ms_of_torch": 1000 * beside}


def _ensemble(task: Task, rows: int, columns: int, space: str) -> Row:
    tables = [_table(task, rows, columns, torch.float16, seed) for seed in range(TABLES)]
    out = torch.empty(rows, columns, device=task.device)
    combine = TorchCombine(str(task.device))
    options = {"space": space, "kinds": ["logits"] * TABLES, "out": out}
    ours = partial(combine, tables, [1 / TABLES] * TABLES, **options)  # type: ignore[arg-type]
    return _figures(task, ours, 2 * TABLES * out.numel() + 4 * out.numel())


def _figures(task: Task, work: Callable[[], object], moved: int) -> Row:
    """Milliseconds, bytes, GB/s and the share of what a copy that moves as many bytes reaches."""
    found = repeated(work, task.device, 0.1 if task.small else 0.8)
    source = torch.zeros(max(1, moved // 2), dtype=torch.uint8, device=task.device)
    goal = torch.empty_like(source)
    copy = repeated(lambda: goal.copy_(source), task.device, 0.1 if task.small else 0.3)["median"]
    row: Row = {"ms": 1000 * found["median"], "ms_min": 1000 * found["min"], "ms_max": 1000 * found["max"]}
    return row | {"gb": moved / 1e9, "gb_per_s": moved / found["median"] / 1e9, "share_of_copy": copy / found["median"]}
