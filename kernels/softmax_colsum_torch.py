"""`softmax_colsum` and `assign` through torch, for score matrices that are to live on a GPU.

Triton does the work where it can; plain torch, the reference, where it cannot.
"""

import numpy as np
import torch
from torch import Tensor

from fasttrain.kernels.assign import Assigned
from fasttrain.kernels.device_stage import triton_works
from fasttrain.kernels.softmax_colsum_plain import empty_row

# Entries of a row block: three copies of it in float32 fit beside the matrix on any GPU.
BLOCK_ENTRIES = 1 << 26


class TorchColumnSums:
    """Keeps a score matrix on a device; each call is one pass over it.

    Args:
        scores: (N, C) float16 or float32, copied to `device` once in its own type; or a tensor, float16, bfloat16 or
            float32, which is kept as it is where it lies there already.
        device: name of a torch device, such as ``cuda`` or ``cpu``.
        triton: whether Triton does the work; None for where it can.
    """

    def __init__(self, scores: np.ndarray | Tensor, device: str, triton: bool | None = None) -> None:
        made = scores.to(device) if isinstance(scores, Tensor) else torch.tensor(scores, device=device)
        self._scores = made.contiguous()
        self._device = self._scores.device
        self._triton = self._device.type == "cuda" and triton_works(self._device) if triton is None else triton

    def __call__(self, offsets: np.ndarray, temperature: float) -> np.ndarray:
        """As `fasttrain.kernels.softmax_colsum.softmax_colsum`: (C,) float64 sums, exponentials in float32."""
        return self.dual(offsets, temperature)[0]

    def dual(self, offsets: np.ndarray, temperature: float) -> tuple[np.ndarray, float]:
        """As `fasttrain.kernels.softmax_colsum.softmax_colsum_dual`.

        Raises:
            ValueError: a row has no finite entry under the offsets.
        """
        there = torch.tensor(offsets, dtype=torch.float64, device=self._device)
        if self._triton:
            from fasttrain.kernels.triton import scores as kernels

            with torch.cuda.device_of(self._scores):
                sums, normalisers = kernels.softmax_colsum(self._scores, there, temperature)
        else:
            sums, normalisers = softmax_colsum_dual(self._scores, there, temperature)
        if not torch.isfinite(normalisers):
            self._name_empty(there)
        return sums.cpu().numpy(), float(normalisers)

    def assign(self, offsets: np.ndarray, temperature: float, *, top: int = 0) -> Assigned:
        """As `fasttrain.kernels.assign.assign`."""
        there = torch.tensor(offsets, dtype=torch.float64, device=self._device)
        if self._triton:
            from fasttrain.kernels.triton import scores as kernels

            with torch.cuda.device_of(self._scores):
                parts = kernels.assign(self._scores, there, temperature)
        else:
            parts = assign(self._scores, there, temperature)
        label, probability, margin, normaliser = (part.cpu().numpy() for part in parts)
        if not np.isfinite(normaliser).all():
            self._name_empty(there)
        best = best_of(self._scores, (there * temperature).float(), top) if top else (None, None)
        return Assigned(label, probability, margin, normaliser.astype(np.float64), *best)

    def _name_empty(self, offsets: Tensor) -> None:
        for start, block in _blocks(self._scores):
            tops = (block + offsets.float()).amax(1)
            if not torch.isfinite(tops).all():
                raise empty_row(start + int((~torch.isfinite(tops)).int().argmax()))


def _blocks(scores: Tensor) -> list[tuple[int, Tensor]]:
    step = max(1, BLOCK_ENTRIES // scores.shape[1])
    return [(start, scores[start : start + step]) for start in range(0, len(scores), step)]


def softmax_colsum_dual(scores: Tensor, offsets: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """The reference of `fasttrain.kernels.triton.scores.softmax_colsum`."""
    sums, normalisers = torch.zeros_like(offsets), offsets.new_zeros(())
    for _, block in _blocks(scores):
        exponents = torch.add(offsets.float(), block, alpha=1 / temperature)
        each = exponents.logsumexp(1, keepdim=True)
        sums += (exponents - each).exp().sum(0, dtype=torch.float64)
        normalisers += each.sum(dtype=torch.float64)
    return sums, normalisers


def assign(scores: Tensor, offsets: Tensor, temperature: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The reference of `fasttrain.kernels.triton.scores.assign`."""
    found = []
    for _, block in _blocks(scores):
        values = block + (offsets * temperature).float()
        label, first = values.argmax(1), values.amax(1)
        others = values.scatter(1, label[:, None], -torch.inf).amax(1)
        normaliser = (values / temperature).logsumexp(1)
        found.append((label.int(), (first / temperature - normaliser).exp(), first - others, normaliser))
    label, probability, margin, normaliser = (torch.cat(parts) for parts in zip(*found, strict=True))
    return label, probability, margin, normaliser


def best_of(scores: Tensor, values: Tensor, top: int) -> tuple[np.ndarray, np.ndarray]:
    """Columns (N, top) int32 of the largest ``scores + values``, the lower of equals first, and these as float32."""
    classes, largest = [], []
    for _, block in _blocks(scores):
        ordered = torch.sort(block + values, dim=1, descending=True, stable=True)
        classes.append(ordered.indices[:, :top].int().cpu())
        largest.append(ordered.values[:, :top].cpu())
    return torch.cat(classes).numpy(), torch.cat(largest).numpy()
