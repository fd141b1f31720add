"""`combine` through torch, on a GPU or whatever device torch knows: Triton where it can, else plain torch."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fasttrain.kernels.combine import Combined, check
from fasttrain.kernels.device_stage import triton_works
from fasttrain.kernels.softmax_colsum_torch import best_of


class TorchCombine:
    """Called as `fasttrain.kernels.combine.combine`, with arrays or with tensors, which are best on the device already.

    Args:
        device: name of a torch device.
        triton: whether Triton does the work; None for where it can.
    """

    def __init__(self, device: str, triton: bool | None = None) -> None:
        self._device = torch.device(device)
        self._triton = self._device.type == "cuda" and triton_works(self._device) if triton is None else triton

    def __call__(
        self,
        tables: Sequence[np.ndarray | Tensor],
        weights: Sequence[float],
        *,
        space: str,
        kinds: Sequence[str],
        temperatures: Sequence[float] | None = None,
        columns: Sequence[np.ndarray | None] | None = None,
        rows: Sequence[np.ndarray | None] | None = None,
        out: np.ndarray | Tensor,
        top: int = 0,
    ) -> Combined:
        """Arguments, result and errors as of `fasttrain.kernels.combine.combine`; sums are float32."""
        count = len(tables)
        temperatures = [1.0] * count if temperatures is None else temperatures
        columns = [None] * count if columns is None else columns
        rows = [None] * count if rows is None else rows
        check([_like(table) for table in tables], weights, space, kinds, temperatures, columns, rows, _like(out), top)
        read = [number for number in range(count) if weights[number]]
        parts: dict[str, Any] = {
            "tables": [self._tensor(tables[number]) for number in read],
            "weights": [float(weights[number]) for number in read],
            "kinds": [kinds[number] for number in read],
            "temperatures": [float(temperatures[number]) for number in read],
            "rows": [self._index(rows[number], len(out), torch.int64) for number in read],
            "columns": [None if columns[one] is None else self._index(columns[one], 0, torch.int32) for one in read],
        }
        direct = isinstance(out, Tensor) and out.device == self._device and out.dtype == torch.float32
        total = out if direct else torch.empty(tuple(out.shape), device=self._device)
        assert isinstance(total, Tensor)
        label = self._work(space)(**parts, out=total)
        if isinstance(out, Tensor):
            out.copy_(total)
        else:
            np.copyto(out, total.to(_dtype(out)).cpu().numpy())
        found = label.cpu().numpy()
        if not top:
            return Combined(found, None, None)
        return Combined(found, *best_of(total, torch.zeros(total.shape[1], device=self._device), top))

    def _work(self, space: str) -> Any:
        if not self._triton:
            return partial(combine, space=space)
        from fasttrain.kernels.triton import combine as kernels

        def work(**parts: Any) -> Tensor:
            if parts["out"].shape[1] > kernels.MOST_IN_REGISTERS:
                return combine(**parts, space=space)
            with torch.cuda.device_of(parts["out"]):
                return kernels.combine(**parts, space=space)

        return work

    def _tensor(self, table: np.ndarray | Tensor) -> Tensor:
        return table.to(self._device) if isinstance(table, Tensor) else torch.tensor(table, device=self._device)

    def _index(self, index: np.ndarray | None, length: int, dtype: torch.dtype) -> Tensor:
        if index is None:
            return torch.arange(length, dtype=dtype, device=self._device)
        return torch.as_tensor(np.ascontiguousarray(index)).to(self._device, dtype)


def _dtype(array: np.ndarray) -> torch.dtype:
    return torch.float16 if array.dtype == np.float16 else torch.float32


def _like(array: np.ndarray | Tensor) -> np.ndarray:
    """An array of the same shape and type, for the checks; that of a tensor takes no memory."""
    if isinstance(array, np.ndarray):
        return array
    names = {torch.float16: np.float16, torch.float32: np.float32}
    empty = np.empty(tuple(array.shape) if array.is_contiguous() else (0,), names.get(array.dtype, np.float64))
    return empty


def combine(
    tables: Sequence[Tensor],
    weights: Sequence[float],
    kinds: Sequence[str],
    temperatures: Sequence[float],
    rows: Sequence[Tensor],
    columns: Sequence[Tensor | None],
    space: str,
    out: Tensor,
) -> Tensor:
    """The reference of `fasttrain.kernels.triton.combine.combine`."""
    out.zero_()
    for table, weight, kind, temperature, row, column in zip(
        tables, weights, kinds, temperatures, rows, columns, strict=True
    ):
        scores = table[row].float() if column is None else table[row][:, column.long()].float()
        if kind == "probs" and space == "probs" and temperature == 1:
            out += scores * (weight / scores.sum(1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny))
            continue
        if kind == "probs":
            bits = 10 if table.dtype == torch.float16 else 23
            scores = scores.clamp(min=torch.finfo(table.dtype).smallest_normal / (1 << bits)).log()
        scores /= temperature
        out += weight * (scores.softmax(1).nan_to_num(0.0) if space == "probs" else scores)
    if space == "log_probs":
        out -= out.logsumexp(1, keepdim=True).nan_to_num(0.0, neginf=0.0)
    return out.argmax(1).int()
