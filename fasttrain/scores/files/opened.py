"""A score table on disk, opened for one pass in row blocks, and another written in row blocks.

Neither is ever whole in memory, and ids stay Arrow arrays: no Python object a sample. `ScoreTable` of `.table`
is the same file for those who want to hold it.
"""

import json
import mmap
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fasttrain.base.atomic import atomic_path
from fasttrain.base.errors import ScoresError
from fasttrain.scores.files.arrow_arrays import as_one, entries, strings, to_arrow, to_numpy
from fasttrain.scores.files.value_check import first_bad_row
from fasttrain.scores.table import FORMAT_VERSION, Kind, ScoreTable, map_file, refuse_duplicates

# Rows that are worked on at once hold about so many scores: enough for all threads, little beside the tables.
BLOCK_ENTRIES = 1 << 22


@dataclass
class OpenedTable:
    """A score table whose header, ids, classes and labels have been checked, and whose scores have not been read.

    Attributes:
        name: for messages, such as its path.
        ids: N strings, each once.
        scores: (N, C) float16 or float32, a view into the file.
        classes: C names, each once.
        kind: what the scores are.
        labels: (N,) int32 true labels, -1 where unknown.
        meta: see `ScoreTable`.
        has_assigned: whether it holds labels that a re-distribution or rules gave.
    """

    name: str
    ids: pa.Array
    scores: np.ndarray
    classes: list[str]
    kind: Kind
    labels: np.ndarray
    meta: dict[str, Any]
    has_assigned: bool = False
    _mapped: mmap.mmap | None = None

    def __len__(self) -> int:
        return len(self.scores)

    @classmethod
    def open(cls, path: str | Path) -> "OpenedTable":
        """Map a table.

        Raises:
            ScoresError: no such file, not a score table of this version, or a damaged one.
        """
        table, header, mapped = map_file(path)
        try:
            opened = cls._from_arrow(str(path), table, header)
        except (KeyError, TypeError, AttributeError, pa.ArrowException, ValueError) as error:
            raise ScoresError(f"{path} is damaged: {error}") from None
        opened._mapped = mapped
        opened._check()
        return opened

    @classmethod
    def _from_arrow(cls, name: str, table: pa.Table, header: dict[str, Any]) -> "OpenedTable":
        ids, labels, scores = (as_one(table[column]) for column in ("id", "label", "scores"))
        ids.validate(full=True)
        scores = entries(scores)
        classes = [str(value) for value in header["classes"]]
        if scores.null_count:
            raise ValueError(f"{scores.null_count} scores are null")
        return cls(
            name=name,
            ids=ids.cast(pa.string()),
            scores=to_numpy(scores).reshape(table.num_rows, len(classes)),
            classes=classes,
            kind=header["kind"],
            labels=to_numpy(labels, -1).astype(np.int32, copy=False),
            meta=dict(header["meta"]),
            has_assigned="assigned" in table.column_names,
        )

    @classmethod
    def of(cls, table: ScoreTable, name: str) -> "OpenedTable":
        """A table that is in memory already."""
        ids = strings(table.ids)
        has_assigned = table.assigned is not None
        scores = np.ascontiguousarray(table.scores)
        return cls(name, ids, scores, table.classes, table.kind, table.labels, table.meta, has_assigned)

    def _check(self) -> None:
        if not len(self) or not self.classes:
            raise ScoresError(f"{self.name} holds no scores; a table needs at least one sample and one class")
        if self.scores.dtype not in (np.float16, np.float32):
            raise ScoresError(f"{self.name} is damaged: scores are float16 or float32, not {self.scores.dtype}")
        if self.kind not in get_args(Kind):
            raise ScoresError(f"{self.name}: scores are of kind {', '.join(get_args(Kind))}, not {self.kind!r}")
        if self.ids.null_count:
            raise ScoresError(f"{self.name}: the sample of row {self.ids.is_null().index(True).as_py()} has no id")
        if len(self.ids.unique()) != len(self):
            counted = self.ids.value_counts()
            twice = counted.field("values").filter(pc.greater(counted.field("counts"), 1))
            raise ScoresError(f"{self.name} holds {len(twice)} names twice: {_listed(twice)}")
        refuse_duplicates(self.classes, f"the list of classes of {self.name}")
        if not -1 <= int(self.labels.min()) <= int(self.labels.max()) < len(self.classes):
            row = int(np.flatnonzero((self.labels < -1) | (self.labels >= len(self.classes)))[0])
            raise ScoresError(
                f"{self.name}: the label {self.labels[row]} of {self.ids[row].as_py()!r} is none of 0 to "
                f"{len(self.classes) - 1}, and not -1 for unknown"
            )

    def check_values(self, block: slice) -> None:
        """Raise a ScoresError that names the first sample among some rows whose scores are not of the table's kind."""
        row = first_bad_row(self.scores[block], self.kind)
        if row is not None:
            what = {
                "probs": "not a number, infinite, negative, or all 0",
                "logits": "not a number, infinite, or -inf for each class",
                "log_probs": "not a number, above 0, or -inf for each class",
            }[self.kind]
            raise ScoresError(
                f"{self.name}: the scores of {self.ids[block.start + row].as_py()!r} are no {self.kind} ({what}); "
                "predict them again"
            )

    def forget(self) -> None:
        """Let go of what has been read, so that a pass over many tables does not fill the memory of the process."""
        if self._mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
            self._mapped.madvise(mmap.MADV_DONTNEED)

    def read(self) -> Iterator[slice]:
        """Row blocks in turn, each checked before it is given out."""
        for block in row_blocks(len(self), len(self.classes)):
            self.check_values(block)
            yield block
            self.forget()


def row_blocks(rows: int, columns: int) -> Iterator[slice]:
    """Consecutive rows that cover a table, about `BLOCK_ENTRIES` scores each."""
    step = max(1, BLOCK_ENTRIES // columns)
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


def _listed(names: pa.Array) -> str:
    return ", ".join(repr(name) for name in names.slice(0, 3).to_pylist())


# --- writing ----------------------------------------------------------------------------------------------------------


class TableWriter:
    """Fills a score table whose file has its full size already; see `writing`."""

    def __init__(self, descriptor: int, places: dict[str, tuple[int, np.dtype[Any]]], columns: int) -> None:
        self._descriptor, self._places, self._columns = descriptor, places, columns

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the scores."""
        return self._places["scores"][1]

    def put(self, block: slice, scores: np.ndarray) -> None:
        """Write the scores (n, C) of some rows."""
        self._store("scores", block.start * self._columns, scores)

    def put_assigned(self, assigned: np.ndarray, assigned_p: np.ndarray) -> None:
        """Write the labels (N,) that were assigned, and their probabilities."""
        self._store("assigned", 0, assigned)
        self._store("assigned_p", 0, assigned_p)

    def _store(self, name: str, entry: int, values: np.ndarray) -> None:
        place, dtype = self._places[name]
        data = np.ascontiguousarray(values, dtype).reshape(-1).view(np.uint8).data
        place += entry * dtype.itemsize
        while data:
            written = os.pwrite(self._descriptor, data, place)
            data, place = data[written:], place + written


@contextmanager
def writing(
    path: str | Path,
    *,
    ids: pa.Array,
    labels: np.ndarray,
    classes: Sequence[str],
    kind: str,
    meta: dict[str, Any],
    dtype: str = "float32",
    assigned: bool = False,
) -> Iterator[TableWriter]:
    """Write a score table piece by piece; it appears under its name when the block ends without an error.

    Arrow writes a batch at once, and a table that can be mapped is one batch. So it is given zeros, which take no
    memory, and their place in the file is filled later.
    """
    rows, columns, entry = len(ids), len(classes), np.dtype(dtype)
    flat = _zeros(rows * columns, entry)
    parts = {
        "id": ids,
        "label": to_arrow(labels.astype(np.int32, copy=False), labels >= 0),
        "scores": pa.FixedSizeListArray.from_arrays(flat, columns),
    }
    if assigned:
        parts |= {"assigned": _zeros(rows, np.dtype(np.int32)), "assigned_p": _zeros(rows, np.dtype(np.float32))}
    header = {"version": FORMAT_VERSION, "classes": list(classes), "kind": kind, "meta": meta}
    batch = pa.RecordBatch.from_pydict(parts).replace_schema_metadata({"fasttrain": json.dumps(header)})
    with atomic_path(path) as part:
        with pa.OSFile(str(part), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as file:
            file.write_batch(batch)
        places = _places(part, [name for name in parts if name not in ("id", "label")])
        with part.open("rb+") as opened:
            yield TableWriter(opened.fileno(), places, columns)


def _zeros(length: int, dtype: np.dtype[Any]) -> pa.Array:
    return to_arrow(np.zeros(length, dtype))


def _places(path: Path, names: list[str]) -> dict[str, tuple[int, np.dtype[Any]]]:
    """Where in a file the values of its columns begin, and their types."""
    with pa.memory_map(str(path)) as mapped:
        start = mapped.read_buffer(1).address
        batch = pa.ipc.open_file(mapped).get_batch(0)
        found = {}
        for name in names:
            values = batch.column(name)
            values = to_numpy(entries(values) if name == "scores" else values)
            found[name] = (values.ctypes.data - start, values.dtype)
        return found
