"""Passes over a score matrix: on the CPU, on a GPU, with a calibration, and shared among the ranks of a job.

A pass reads the stored scores where they lie, in the type that they have; a row's constant does not change its softmax,
so logits and log-probabilities do alike.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np

from fasttrain.base.distributed import sum_over_ranks
from fasttrain.base.errors import ScoresError
from fasttrain.base.process import default_threads, rank, world_size
from fasttrain.kernels.assign import Assigned, assign
from fasttrain.kernels.softmax_colsum import softmax_colsum_dual
from fasttrain.scores.table import ScoreTable, share


class Held(Protocol):
    """A score matrix on a device, as `fasttrain.kernels.softmax_colsum_torch.TorchColumnSums` holds it."""

    def dual(self, offsets: np.ndarray, temperature: float) -> tuple[np.ndarray, float]:
        """As `softmax_colsum_dual`."""

    def assign(self, offsets: np.ndarray, temperature: float, *, top: int = 0) -> Assigned:
        """As `fasttrain.kernels.assign.assign`."""


class Sums(Protocol):
    """What the solver asks of a score matrix S of N rows."""

    samples: int

    def sums(self, v: np.ndarray, eps: float) -> tuple[np.ndarray, float]:
        """Column sums (C,) float64 of ``softmax(S / eps + v)`` over all N rows, and their summed log-normalisers."""

    def possible(self, columns: np.ndarray) -> np.ndarray:
        """(len(columns),) bool: whether any of the N rows has a score above -inf there."""


class Passes(Sums, Protocol):
    """What the rounding asks besides; this process holds the rows `rows`."""

    columns: int
    rows: slice

    def assign(self, v: np.ndarray, eps: float, top: int = 0) -> Assigned:
        """Labels of this process's rows under v; values and margins are ``S + eps * v``, in nats."""

    def values(self, rows: np.ndarray | slice) -> np.ndarray:
        """(n, C) float64 scores S of some of this process's rows, counted from its first."""


class HostPasses:
    """Passes over this rank's rows of a matrix in memory or in a mapped file; sums are over all ranks.

    Column sums are float64 in an order that depends on nothing but the matrix, so results repeat bit for bit. Several
    ranks add theirs in one all-reduce of C + 1 numbers: the same number of ranks gives the same bits, another number
    the same sums added in another order (float64).

    Args:
        scores: (n, C) this rank's rows.
        samples: N, of all ranks.
        first: number of this rank's first row.
        ids: (n,) for error messages.
        held: these rows on a device, which then does the work.
        device: where torch adds up the ranks' sums.
        threads: on the CPU; None for one a core, shared among the ranks of a machine.
    """

    def __init__(
        self,
        scores: np.ndarray,
        *,
        samples: int | None = None,
        first: int = 0,
        ids: Sequence[str] | None = None,
        held: Held | None = None,
        device: str = "cpu",
        threads: int | None = None,
    ) -> None:
        self._scores = np.ascontiguousarray(scores)
        self.columns = scores.shape[1]
        self.samples = len(scores) if samples is None else samples
        self.rows = slice(first, first + len(scores))
        self._ids = ids
        self._held = held
        self._device = device
        self._threads = threads or default_threads()

    def sums(self, v: np.ndarray, eps: float) -> tuple[np.ndarray, float]:
        """See `Passes`."""
        try:
            if self._held is not None:
                sums, normalisers = self._held.dual(v, eps)
            else:
                sums, normalisers = softmax_colsum_dual(self._scores, v, eps, threads=self._threads)
        except ValueError:
            self._explain(v)
            raise
        total = self._over_ranks(np.append(sums, normalisers))
        return total[:-1], float(total[-1])

    def assign(self, v: np.ndarray, eps: float, top: int = 0) -> Assigned:
        """See `Passes`."""
        top = min(top, self.columns)
        if self._held is not None:
            return self._held.assign(v, eps, top=top)
        return assign(self._scores, v, eps, top=top, threads=self._threads)

    def values(self, rows: np.ndarray | slice) -> np.ndarray:
        """See `Passes`."""
        return self._scores[rows].astype(np.float64)

    def possible(self, columns: np.ndarray) -> np.ndarray:
        """See `Passes`."""
        found = np.isfinite(self._scores[:, columns]).any(0)
        return self._over_ranks(found.astype(np.float64)) > 0

    def _over_ranks(self, values: np.ndarray) -> np.ndarray:
        if world_size() == 1:
            return values
        import torch

        return sum_over_ranks(torch.from_numpy(values).to(self._device)).cpu().numpy()

    def _explain(self, v: np.ndarray) -> None:
        """Raise a ScoresError that names a row without a possible class, if that is what went wrong."""
        open_ = np.isfinite(v)
        step = max(1, (1 << 22) // self.columns)
        lost: list[int] = []
        for start in range(0, len(self._scores), step):
            possible = np.isfinite(self._scores[start : start + step][:, open_]).any(1)
            lost += (start + np.flatnonzero(~possible)).tolist()
        if lost:
            name = repr(self._ids[lost[0]]) if self._ids is not None else str(self.rows.start + lost[0])
            raise ScoresError(
                f"row {name} ({len(lost)} such) has no probability but in classes that may take no sample; give these "
                "a prior above 0"
            )


class CalibratedPasses:
    """Passes over calibrated scores ``S / temperature + bias``, made from those over S: nothing is copied.

    Args:
        inner: passes over S.
        temperature: above 0.
        bias: (C,) float64.
    """

    def __init__(self, inner: Passes, temperature: float, bias: np.ndarray) -> None:
        self._inner, self._temperature, self._bias = inner, temperature, bias
        self.samples, self.columns, self.rows = inner.samples, inner.columns, inner.rows

    def over(self, inner: Passes) -> "CalibratedPasses":
        """The same calibration of other scores."""
        return CalibratedPasses(inner, self._temperature, self._bias)

    def sums(self, v: np.ndarray, eps: float) -> tuple[np.ndarray, float]:
        """See `Passes`."""
        return self._inner.sums(v + self._bias / eps, eps * self._temperature)

    def assign(self, v: np.ndarray, eps: float, top: int = 0) -> Assigned:
        """See `Passes`."""
        found = self._inner.assign(v + self._bias / eps, eps * self._temperature, top)
        scale = np.float32(1 / self._temperature)
        values = None if found.top_values is None else found.top_values * scale
        return replace(found, margin=found.margin * scale, top_values=values)

    def values(self, rows: np.ndarray | slice) -> np.ndarray:
        """See `Passes`."""
        return self._inner.values(rows) / self._temperature + self._bias

    def possible(self, columns: np.ndarray) -> np.ndarray:
        """See `Passes`."""
        return self._inner.possible(columns)


def passes_of(table: ScoreTable, device: str = "cpu") -> HostPasses:
    """Passes over this rank's share of a table's rows: consecutive ones, equally many on each rank up to one.

    Raises:
        ScoresError: the device is not there.
    """
    rows = share(len(table), rank(), world_size())
    scores = log_scores(table, rows)
    held = None if device == "cpu" else _on_device(scores, device)
    return HostPasses(scores, samples=len(table), first=rows.start, ids=table.ids[rows], held=held, device=device)


def log_scores(table: ScoreTable, rows: slice) -> np.ndarray:
    """(n, C) scores of `rows` as logarithms up to a constant a row.

    Those of the table, uncopied, unless it holds probabilities: their logarithms take a second array, of its own type.
    """
    scores = table.scores[rows]
    if table.kind != "probs":
        return scores
    logs = np.empty_like(scores)
    least = np.finfo(scores.dtype).smallest_subnormal  # see ScoreTable.log_probs
    step = max(1, (1 << 20) // scores.shape[1])
    for start in range(0, len(scores), step):
        part = slice(start, start + step)
        logs[part] = np.log(np.maximum(scores[part], least), dtype=np.float32)
    return logs


def _on_device(scores: np.ndarray, device: str) -> Held:
    import torch

    from fasttrain.kernels.softmax_colsum_torch import TorchColumnSums

    if not torch.cuda.is_available():
        raise ScoresError("torch sees no CUDA device on this machine; leave out --device cuda")
    return TorchColumnSums(scores, device)
