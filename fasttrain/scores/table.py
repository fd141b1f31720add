"""The score table: one row of scores a sample, joined by string id, as one memory-mappable Arrow file."""

import json
import mmap
from collections.abc import Iterator
from copy import copy
from dataclasses import InitVar, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa

from fasttrain.base.atomic import atomic_path
from fasttrain.base.errors import ScoresError
from fasttrain.scores.files.arrow_arrays import as_one, entries, strings, to_arrow, to_numpy
from fasttrain.scores.files.value_check import LOG_PROB_LIMIT, are_bad

Kind = Literal["logits", "log_probs", "probs"]
Rows = slice | np.ndarray
FORMAT_VERSION = 1
# Whole-matrix work goes in row blocks of about so many entries, so that its float64 copies stay small.
BLOCK_ENTRIES = 1 << 19


@dataclass
class ScoreTable:
    """Scores of N samples over C classes.

    Attributes:
        ids: N string ids, each once.
        scores: (N, C) float16 or float32.
        classes: C names.
        kind: what the scores are.
        labels: (N,) int32 true labels, -1 where unknown (all of them by default). Never a predicted label.
        assigned: (N,) int32 labels that a re-distribution gave, or None.
        assigned_p: (N,) float32 their probabilities in the transport plan, or None.
        meta: anything that JSON holds: model, checkpoint hash, data fingerprint, validation figures, method, …
        checked: rows whose scores are looked at; all of them, unless others look at the rest.

    Raises:
        ScoresError: the parts do not fit together, an id occurs twice, or a score is not a number.
    """

    ids: list[str]
    scores: np.ndarray
    classes: list[str]
    kind: Kind
    labels: np.ndarray = field(default_factory=lambda: np.empty(0, np.int32))
    assigned: np.ndarray | None = None
    assigned_p: np.ndarray | None = None
    meta: dict[str, Any] = field(default_factory=dict)
    checked: InitVar[slice] = slice(None)

    def __post_init__(self, checked: slice) -> None:
        self.ids, self.classes = list(self.ids), list(self.classes)
        self.labels = np.asarray(self.labels, np.int32) if len(self.labels) else np.full(len(self.ids), -1, np.int32)
        if self.scores.dtype not in (np.float16, np.float32):
            self.scores = self.scores.astype(np.float32)
        self._check_shapes()
        refuse_duplicates(self.ids, "the score table")
        refuse_duplicates(self.classes, "the list of classes")
        self._check_values(checked)

    def __len__(self) -> int:
        return len(self.ids)

    def _check_shapes(self) -> None:
        rows, columns = len(self.ids), len(self.classes)
        if self.kind not in get_args(Kind):
            raise ScoresError(f"scores are of kind {', '.join(get_args(Kind))}, not {self.kind!r}")
        if self.scores.shape != (rows, columns):
            raise ScoresError(f"{rows} ids and {columns} classes do not fit scores of shape {self.scores.shape}")
        if rows == 0 or columns == 0:
            raise ScoresError("a score table needs at least one sample and one class")
        for name, values in (("labels", self.labels), ("assigned", self.assigned), ("assigned_p", self.assigned_p)):
            if values is not None and len(values) != rows:
                raise ScoresError(f"{len(values)} {name} do not fit {rows} samples")
        if int(self.labels.max()) >= columns or int(self.labels.min()) < -1:
            raise ScoresError(f"labels must be 0 to {columns - 1}, or -1 for unknown")
        if self.assigned is not None and not 0 <= int(self.assigned.min()) <= int(self.assigned.max()) < columns:
            raise ScoresError(f"assigned labels must be 0 to {columns - 1}")

    def _check_values(self, checked: slice) -> None:
        bad = np.zeros(len(self), bool)
        for rows in self.row_blocks(checked):
            block = self.scores[rows]
            top, least = block.max(1), block.min(1)
            bad[rows] = are_bad(top, least, self.kind)
            if self.kind == "log_probs" and (top > LOG_PROB_LIMIT).any():
                first = self.ids[rows.start + int((top > LOG_PROB_LIMIT).argmax())]
                raise ScoresError(f"log-probabilities are at most 0, those of {first!r} are not; are they logits?")
        if bad.any():
            first = [self.ids[row] for row in np.flatnonzero(bad)[:3]]
            raise ScoresError(
                f"{int(bad.sum())} samples have scores that are no {self.kind} (not a number, infinite, or negative or "
                f"all-zero probabilities): {', '.join(first)}, …; predict them again"
            )

    def row_blocks(self, within: slice = slice(None)) -> Iterator[slice]:
        """Consecutive rows that cover the table, or a part of it, about `BLOCK_ENTRIES` scores each."""
        first, last, _ = within.indices(len(self))
        step = max(1, BLOCK_ENTRIES // len(self.classes))
        for start in range(first, last, step):
            yield slice(start, min(start + step, last))

    # --- values -----------------------------------------------------------------------------------------------------

    def log_probs(self, rows: Rows = slice(None)) -> np.ndarray:
        """(n, C) float64 log-probabilities of `rows`, normalised so that each row's probabilities sum to 1.

        A stored probability of 0 counts as the smallest number that its type can hold: it was rounded to 0, and taken
        for impossible it would let a single model veto a class.
        """
        scores = self.scores[rows].astype(np.float64)
        if self.kind == "probs":
            scores = np.log(np.maximum(scores, float(np.finfo(self.scores.dtype).smallest_subnormal)))
        return log_normalise(scores)

    def probs(self, rows: Rows = slice(None)) -> np.ndarray:
        """(n, C) float64 probabilities of `rows`, each row scaled to sum 1."""
        if self.kind != "probs":
            return np.exp(self.log_probs(rows))
        scores = self.scores[rows].astype(np.float64)
        return scores / scores.sum(1, keepdims=True)

    def argmax(self, rows: slice = slice(None)) -> np.ndarray:
        """(n,) int32 class of the highest score of each of `rows`."""
        first, last, _ = rows.indices(len(self))
        labels = np.empty(last - first, np.int32)
        for block in self.row_blocks(rows):  # NumPy copies what is read-only
            labels[block.start - first : block.stop - first] = self.scores[block].argmax(1)
        return labels

    def predictions(self, use: str | None = None) -> np.ndarray:
        """(N,) int32 labels to act on: ``assigned``, ``argmax``, or the former where it is there (None).

        Raises:
            ScoresError: ``assigned`` is asked for and the table was not re-distributed.
        """
        if use not in (None, "argmax", "assigned"):
            raise ScoresError(f"predictions are 'argmax' or 'assigned', not {use!r}")
        if use == "argmax" or (use is None and self.assigned is None):
            return self.argmax()
        if self.assigned is None:
            raise ScoresError("the table has no assigned labels; run `fasttrain redistribute` first, or --use argmax")
        return self.assigned

    def with_assigned(self, assigned: np.ndarray, assigned_p: np.ndarray, meta: dict[str, Any]) -> "ScoreTable":
        """This table, its scores shared and not looked at again, with other assigned labels and other meta."""
        result = copy(self)
        result.assigned, result.assigned_p, result.meta = assigned, assigned_p, meta
        result._check_shapes()
        return result

    def accuracy(self, predicted: np.ndarray) -> float | None:
        """Share of the labelled samples whose `predicted` (N,) label is right; None without labels."""
        known = self.labels >= 0
        return float((predicted[known] == self.labels[known]).mean()) if known.any() else None

    # --- file -------------------------------------------------------------------------------------------------------

    def write(self, path: str | Path) -> None:
        """Write the table as an Arrow IPC file, atomically."""
        flat = to_arrow(self.scores.reshape(-1))
        columns: dict[str, pa.Array] = {
            "id": strings(self.ids),
            "label": to_arrow(self.labels, self.labels >= 0),
            "scores": pa.FixedSizeListArray.from_arrays(flat, len(self.classes)),
        }
        if self.assigned is not None:
            columns["assigned"] = to_arrow(np.asarray(self.assigned, np.int32))
        if self.assigned_p is not None:
            columns["assigned_p"] = to_arrow(np.asarray(self.assigned_p, np.float32))
        header = {"version": FORMAT_VERSION, "classes": self.classes, "kind": self.kind, "meta": self.meta}
        table = pa.table(columns).replace_schema_metadata({"fasttrain": json.dumps(header)})
        with atomic_path(path) as part, pa.OSFile(str(part), "wb") as sink, pa.ipc.new_file(sink, table.schema) as file:
            # One batch, so that the scores are one block of memory when the file is mapped.
            file.write_table(table, max_chunksize=len(self))

    @classmethod
    def read(cls, path: str | Path, *, part: tuple[int, int] = (0, 1)) -> "ScoreTable":
        """Map a table; its scores are a view into the file until they are changed.

        Args:
            path: the file.
            part: (number, of how many): only this part of the rows is checked for impossible scores (`share`).

        Raises:
            ScoresError: no such file, or not a score table of this version.
        """
        table, header, _ = map_file(path)
        try:
            return cls._from_arrow(table, header, share(table.num_rows, *part))
        except (KeyError, TypeError, AttributeError, pa.ArrowException, ValueError) as error:
            raise ScoresError(f"{path} is damaged: {error}") from None
        except ScoresError as error:
            raise ScoresError(f"{path}: {error}") from None

    @classmethod
    def _from_arrow(cls, table: pa.Table, header: dict[str, Any], checked: slice) -> "ScoreTable":
        def column(name: str) -> np.ndarray | None:
            return to_numpy(as_one(table[name])) if name in table.column_names else None

        return cls(
            ids=table["id"].to_pylist(),
            scores=to_numpy(entries(as_one(table["scores"]))).reshape(table.num_rows, len(header["classes"])),
            classes=header["classes"],
            kind=header["kind"],
            labels=to_numpy(as_one(table["label"]), -1),
            assigned=column("assigned"),
            assigned_p=column("assigned_p"),
            meta=header["meta"],
            checked=checked,
        )


def map_file(path: str | Path) -> tuple[pa.Table, dict[str, Any], mmap.mmap]:
    """Map the file of a score table: its columns, the header, and the map itself.

    Raises:
        ScoresError: no such file, or not a score table of this version.
    """
    try:
        with Path(path).open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        table = pa.ipc.open_file(pa.BufferReader(pa.py_buffer(mapped))).read_all()
        header = json.loads(table.schema.metadata[b"fasttrain"])
        version = header["version"]
    except FileNotFoundError:
        raise ScoresError(f"{path}: no such file") from None
    except (pa.ArrowInvalid, KeyError, TypeError, ValueError, OSError) as error:
        raise ScoresError(f"{path} is not a score table ({error}); `fasttrain scores import` makes one") from None
    if version != FORMAT_VERSION:
        raise ScoresError(f"{path} is a score table of version {version}; this fasttrain reads {FORMAT_VERSION}")
    return table, header, mapped


def share(rows: int, number: int, parts: int) -> slice:
    """Rows of one of `parts` parts: consecutive ones, equally many in each up to one."""
    return slice(rows * number // parts, rows * (number + 1) // parts)


def log_normalise(values: np.ndarray) -> np.ndarray:
    """(n, C) values with each row shifted so that its exponentials sum to 1 (log-softmax)."""
    top = values.max(1, keepdims=True)
    return values - (top + np.log(np.exp(values - top).sum(1, keepdims=True)))


def refuse_duplicates(names: list[str], where: str) -> None:
    """Raise a ScoresError that names the first of `names` which occur twice."""
    if len(set(names)) == len(names):
        return
    seen: set[str] = set()
    twice = [name for name in names if name in seen or seen.add(name)]  # type: ignore[func-returns-value]
    raise ScoresError(f"{where} holds {len(twice)} names twice: {', '.join(map(repr, twice[:3]))}")
