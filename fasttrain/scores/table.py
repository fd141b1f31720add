"""The score table: what a model says about N samples and C classes, as one memory-mappable Arrow IPC file. No torch."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from fasttrain.base.errors import ScoresError
from fasttrain.scores import arrow
from fasttrain.scores.arrow import UNKNOWN

Kind = Literal["logits", "log_probs", "probs"]
KINDS: tuple[Kind, ...] = ("logits", "log_probs", "probs")
BLOCK_BYTES = 16 << 20
"""Work on a whole matrix goes in row blocks of about this size once widened to float64."""
PROBABILITY_SUM_TOLERANCE = 0.02
_FIRST = 5


@dataclass(eq=False)
class ScoreTable:
    """Scores of N samples over C classes.

    Attributes:
        ids: N unique sample ids.
        scores: (N, C) float16 or float32. ``-inf`` is allowed in ``log_probs`` only (an impossible class).
        classes: C unique class names, in the order of the columns.
        kind: what the scores are. ``logits`` and ``log_probs`` are defined up to a constant per row; rows of ``probs``
            sum to 1.
        labels: (N,) int32, the true class of each sample, `UNKNOWN` (-1) where it is not known (all, when not given).
        assigned: (N,) int32, the class that a re-distribution gave each sample, or None.
        assigned_p: (N,) float32 in 0–1, the probability of that class in the transport plan, or None.
        meta: free-form facts that JSON can hold (model, checkpoint hash, data fingerprint, validation metric, views …).

    Raises:
        ScoresError: on construction, when the parts do not fit together; the first offending ids are named.
    """

    ids: list[str]
    scores: npt.NDArray[Any]
    classes: list[str]
    kind: Kind
    labels: npt.NDArray[np.int32] = None  # type: ignore[assignment]  # becomes an array of UNKNOWN
    assigned: npt.NDArray[np.int32] | None = None
    assigned_p: npt.NDArray[np.float32] | None = None
    meta: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.scores = np.asarray(self.scores)
        _check_shape(self)
        self.labels = _class_column(self, "labels", self.labels, allow_unknown=True)
        if self.assigned is not None:
            self.assigned = _class_column(self, "assigned", self.assigned, allow_unknown=False)
        if self.assigned_p is not None:
            self.assigned_p = _probability_column(self)
        _check_scores(self)

    def __len__(self) -> int:
        return len(self.ids)

    def row_blocks(self) -> Iterator[slice]:
        """Slices of consecutive rows that cover the table, each about `BLOCK_BYTES` once in float64."""
        return row_blocks(*self.scores.shape)

    def log_probs(self, rows: slice = slice(None), dtype: npt.DTypeLike = np.float32) -> npt.NDArray[Any]:
        """Natural log-probabilities of `rows`, (n, C) of `dtype`, normalised by a stable log-softmax.

        A stored probability of 0 counts as the smallest positive number of its dtype: it was rounded to 0.
        """
        block = self._unnormalised_logs(rows)
        block -= block.max(axis=1, keepdims=True)
        block -= np.log(np.exp(block).sum(axis=1, keepdims=True))
        return block.astype(dtype, copy=False)

    def probs(self, rows: slice = slice(None), dtype: npt.DTypeLike = np.float32) -> npt.NDArray[Any]:
        """Probabilities of `rows`, (n, C) of `dtype`: stored ones as they are, others by a stable softmax (float64)."""
        block = self.scores[rows].astype(np.float64)
        if self.kind != "probs":
            block -= block.max(axis=1, keepdims=True)
            np.exp(block, out=block)
            block /= block.sum(axis=1, keepdims=True)
        return block.astype(dtype, copy=False)

    def _unnormalised_logs(self, rows: slice) -> npt.NDArray[np.float64]:
        block = self.scores[rows].astype(np.float64)
        if self.kind == "probs":
            np.maximum(block, smallest_positive(self.scores.dtype), out=block)
            np.log(block, out=block)
        return block

    def argmax(self) -> npt.NDArray[np.int32]:
        """(N,) int32 class of the highest score; the first one on ties."""
        result = np.empty(len(self), np.int32)
        for rows in self.row_blocks():
            result[rows] = self.scores[rows].argmax(axis=1)
        return result

    def accuracy(self, predicted: npt.ArrayLike) -> float | None:
        """Share (0–1) of samples with a known true label whose (N,) `predicted` class is that label; None without labels."""
        known = self.labels != UNKNOWN
        if not known.any():
            return None
        return float((np.asarray(predicted)[known] == self.labels[known]).mean())

    def with_changes(self, **changes: Any) -> "ScoreTable":
        """A copy with some attributes replaced, checked like a new table."""
        return replace(self, **changes)

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the table as one Arrow IPC file, atomically."""
        header = {"classes": self.classes, "kind": self.kind, "meta": self.meta}
        arrow.write_table(
            path, header, self.ids, self.labels, self.scores, assigned=self.assigned, assigned_p=self.assigned_p
        )

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> "ScoreTable":
        """Memory-map a table: `scores` is a read-only view of the file, not a copy.

        Raises:
            ScoresError: the file is missing, not an Arrow IPC file, or not a score table.
        """
        header, columns = arrow.read_table(Path(path))
        try:
            return cls(classes=header["classes"], kind=header["kind"], meta=header.get("meta", {}), **columns)
        except ScoresError as error:
            raise ScoresError(f"{path}: {error}") from None


def row_blocks(rows: int, columns: int, block_bytes: int = BLOCK_BYTES) -> Iterator[slice]:
    """Slices of consecutive rows of a (rows, columns) matrix, each about `block_bytes` in float64."""
    step = max(1, block_bytes // (8 * max(1, columns)))
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


def smallest_positive(dtype: npt.DTypeLike) -> float:
    """The smallest number above 0 that a float dtype can hold."""
    return float(np.finfo(np.dtype(dtype)).smallest_subnormal)


def first_names(names: Sequence[str], limit: int = _FIRST) -> str:
    """``'a', 'b' … (12 in all)``: the first few names for an error message."""
    shown = ", ".join(repr(name) for name in names[:limit])
    return shown if len(names) <= limit else f"{shown} … ({len(names)} in all)"


def duplicates(names: Sequence[str]) -> list[str]:
    """Names that occur more than once, in order of first appearance."""
    if len(set(names)) == len(names):
        return []
    return [name for name, count in Counter(names).items() if count > 1]


def _check_shape(table: ScoreTable) -> None:
    if table.kind not in KINDS:
        raise ScoresError(f"unknown kind of scores {table.kind!r}; known: {', '.join(KINDS)}")
    if table.scores.dtype not in (np.float16, np.float32):
        raise ScoresError(f"scores must be float16 or float32, not {table.scores.dtype}")
    if table.scores.shape != (len(table.ids), len(table.classes)):
        raise ScoresError(
            f"scores of shape {table.scores.shape} do not fit {len(table.ids)} ids and {len(table.classes)} classes"
        )
    if not table.ids or not table.classes:
        raise ScoresError("a score table needs at least one sample and one class")
    if repeated := duplicates(table.ids):
        raise ScoresError(f"duplicate sample ids: {first_names(repeated)}; every sample may occur only once")
    if repeated := duplicates(table.classes):
        raise ScoresError(f"duplicate class names: {first_names(repeated)}")


def _class_column(
    table: ScoreTable, name: str, values: npt.NDArray[np.int32] | None, *, allow_unknown: bool
) -> npt.NDArray[np.int32]:
    """Check a column of class indices: (N,) integers in [0, C), or -1 where unknown is allowed."""
    if values is None:
        return np.full(len(table), UNKNOWN, np.int32)
    column = np.asarray(values)
    if column.shape != (len(table),) or column.dtype.kind not in "iu":
        raise ScoresError(f"{name} must be {len(table)} integers, not {column.dtype} of shape {column.shape}")
    wrong = (column < (UNKNOWN if allow_unknown else 0)) | (column >= len(table.classes))
    if wrong.any():
        names = [table.ids[row] for row in np.flatnonzero(wrong)]
        raise ScoresError(f"{name} outside of the {len(table.classes)} classes at samples {first_names(names)}")
    return column.astype(np.int32, copy=False)


def _probability_column(table: ScoreTable) -> npt.NDArray[np.float32]:
    column = np.asarray(table.assigned_p, dtype=np.float32)
    if column.shape != (len(table),) or table.assigned is None:
        raise ScoresError(f"assigned_p must be {len(table)} numbers beside an assigned column")
    wrong = ~((column >= 0) & (column <= 1 + 1e-5))
    if wrong.any():
        names = [table.ids[row] for row in np.flatnonzero(wrong)]
        raise ScoresError(f"assigned_p is not a probability at samples {first_names(names)}")
    return column


def _check_scores(table: ScoreTable) -> None:
    """One pass over the matrix in blocks; the first offending ids are named."""
    for rows in table.row_blocks():
        block = table.scores[rows]
        for reason, wrong in _problems(block, table.kind):
            if wrong.any():
                names = [table.ids[rows.start + row] for row in np.flatnonzero(wrong)]
                raise ScoresError(f"{reason} at samples {first_names(names)}")


def _problems(block: npt.NDArray[Any], kind: Kind) -> Iterator[tuple[str, npt.NDArray[np.bool_]]]:
    if kind == "log_probs":
        top = block.max(axis=1)
        yield "scores are not finite (NaN)", np.isnan(top)
        yield "log-probabilities are all -inf", np.isneginf(top)
        yield "log-probabilities above 0 (are they logits?)", top > 1e-2
        return
    yield "scores are not finite (NaN or infinity)", ~np.isfinite(block).all(axis=1)
    if kind == "probs":
        yield "negative probabilities (are they logits or log-probabilities?)", block.min(axis=1) < 0
        sums = block.sum(axis=1, dtype=np.float64)
        yield "probabilities that do not sum to 1", np.abs(sums - 1) > PROBABILITY_SUM_TOLERANCE
