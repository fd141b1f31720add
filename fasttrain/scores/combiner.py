"""Where scores are combined: on the CPU without torch, or on a CUDA device."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fasttrain.base.errors import ScoresError
from fasttrain.kernels.combine import combine

if TYPE_CHECKING:
    import torch


def combiner(device: str) -> Callable[..., Any]:
    """`fasttrain.kernels.combine.combine` for ``cpu``, and what does the same on ``cuda``.

    Raises:
        ScoresError: there is no such device.
    """
    if device == "cpu":
        return combine
    import torch

    if not torch.cuda.is_available():
        raise ScoresError("torch sees no CUDA device on this machine; leave out --device cuda")
    return TorchCombiner(torch.device("cuda"))


class TorchCombiner:
    """`combine` in torch and float32: row blocks go to the device as they are stored, their sum comes back.

    Equal to the CPU's result within float32 rounding (relative 1e-5).
    """

    def __init__(self, device: "torch.device") -> None:
        self._device = device

    def __call__(
        self,
        tables: Sequence[np.ndarray],
        weights: Sequence[float],
        *,
        space: str,
        kinds: Sequence[str],
        temperatures: Sequence[float] | None,
        columns: Sequence[np.ndarray | None],
        rows: Sequence[np.ndarray | None],
        out: np.ndarray,
    ) -> None:
        """Write the weighted sum into `out` (n, C); arguments as of `fasttrain.kernels.combine.combine`."""
        import torch

        total = torch.zeros(out.shape, dtype=torch.float32, device=self._device)
        for number, (table, weight, row) in enumerate(zip(tables, weights, rows, strict=True)):
            if weight == 0:  # else its -inf would make NaN
                continue
            temperature = 1.0 if temperatures is None else temperatures[number]
            values = self._in_space(table if row is None else table[row], kinds[number], space, temperature)
            column = columns[number]
            if column is not None:
                values = values[:, torch.as_tensor(column, device=self._device)]
            total.add_(values, alpha=weight)
        if space == "log_probs":
            total = torch.log_softmax(total, 1)
        dtype = torch.float16 if out.dtype == np.float16 else torch.float32
        out[...] = total.to(dtype).cpu().numpy()

    def _in_space(self, scores: np.ndarray, kind: str, space: str, temperature: float) -> "torch.Tensor":
        import torch

        on_device = self._uploaded(scores)
        values = on_device.float()
        if kind == "probs":
            if space == "probs" and temperature == 1:
                return values / values.sum(1, keepdim=True)
            values = values.clamp_(min=float(np.finfo(scores.dtype).smallest_subnormal)).log_()
        values = values / temperature
        if space == "logits":
            return values
        return torch.softmax(values, 1) if space == "probs" else torch.log_softmax(values, 1)

    def _uploaded(self, scores: np.ndarray) -> "torch.Tensor":
        """(n, C) on the device, by way of pinned memory; mapped files are read-only, which torch does not know."""
        import torch

        dtype = torch.float16 if scores.dtype == np.float16 else torch.float32
        staged = torch.empty(scores.shape, dtype=dtype, pin_memory=self._device.type == "cuda")
        staged.numpy()[...] = scores
        return staged.to(self._device)
