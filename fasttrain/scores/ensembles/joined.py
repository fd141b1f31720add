"""Several models' tables of the same samples and classes, joined by name, read together in row blocks."""

from collections.abc import Iterator, Sequence
from copy import copy

import numpy as np
import pyarrow.compute as pc

from fasttrain.base.errors import ScoresError
from fasttrain.kernels.assign import assign
from fasttrain.scores.files.arrow_arrays import to_numpy
from fasttrain.scores.files.opened import OpenedTable, row_blocks


class Joined:
    """Tables whose rows and columns are found in the order of the first one.

    Attributes:
        tables: M.
        ids, classes: of the first.
        rows: of each, the row (N,) that is row i of the first; None for i itself.
        columns: of each, the column (C,) that is column j of the first; None for j itself.
        labels: (N,) int32 the first known label of each sample as a column of the first table, -1 where unknown.

    Raises:
        ScoresError: the tables do not hold the same ids and classes, or know different labels.
    """

    def __init__(self, tables: Sequence[OpenedTable]) -> None:
        if not tables:
            raise ScoresError("an ensemble needs at least one score table")
        self.tables, self.ids, self.classes = list(tables), tables[0].ids, tables[0].classes
        self.columns = [_column_order(tables[0], table) for table in tables]
        self.rows = [_row_order(tables[0], table) for table in tables]
        self.labels = self._joined_labels()

    def __len__(self) -> int:
        return len(self.ids)

    def blocks(self) -> Iterator[slice]:
        """Row blocks in turn. Each row of each table is checked once; a bad one ends the pass."""
        for block in row_blocks(len(self), len(self.classes)):
            for table in self.tables:
                table.check_values(block)
            yield block
            for table in self.tables:
                table.forget()

    def sources(self, block: slice) -> tuple[list[np.ndarray], list[np.ndarray | None]]:
        """Of each table the array that holds some rows, and which rows of it they are (None: all, in order)."""
        arrays = [
            table.scores[block] if rows is None else table.scores
            for table, rows in zip(self.tables, self.rows, strict=True)
        ]
        return arrays, [None if rows is None else rows[block] for rows in self.rows]

    def scores(self, number: int, block: slice) -> np.ndarray:
        """(n, C) scores of one table in the order of the first."""
        table, rows, columns = self.tables[number], self.rows[number], self.columns[number]
        values = table.scores[block if rows is None else rows[block]]
        return values if columns is None else np.ascontiguousarray(values[:, columns])

    def argmax(self) -> np.ndarray:
        """(N, M) int32 class of each table's highest score, the lowest of equals. One read of each table."""
        labels = np.empty((len(self), len(self.tables)), np.int32)
        for block in self.blocks():
            for number in range(len(self.tables)):
                labels[block, number] = assign(self.scores(number, block), np.zeros(len(self.classes)), 1.0).label
        return labels

    def only(self, numbers: Sequence[int]) -> "Joined":
        """Some of the tables, in the order of the same first one."""
        part = copy(self)
        part.tables = [self.tables[number] for number in numbers]
        part.rows = [self.rows[number] for number in numbers]
        part.columns = [self.columns[number] for number in numbers]
        return part

    def _joined_labels(self) -> np.ndarray:
        labels = self.tables[0].labels.copy()
        for table, rows, columns in zip(self.tables[1:], self.rows[1:], self.columns[1:], strict=True):
            other = table.labels if rows is None else table.labels[rows]
            if columns is not None:
                position = np.argsort(columns).astype(np.int32)  # column of the first table for each of this one
                other = np.where(other >= 0, position[np.maximum(other, 0)], -1)
            clash = (labels >= 0) & (other >= 0) & (labels != other)
            if clash.any():
                name = self.ids[int(clash.argmax())].as_py()
                raise ScoresError(f"the tables know different true labels of {name!r} ({int(clash.sum())} such)")
            labels = np.where(labels >= 0, labels, other)
        return labels


def _row_order(first: OpenedTable, table: OpenedTable) -> np.ndarray | None:
    """Row in `table` of each id of `first`; None where they are the same rows."""
    if table.ids.equals(first.ids):
        return None
    order = pc.index_in(first.ids, value_set=table.ids)
    if order.null_count or len(table) != len(first):
        missing, told = first.ids.filter(order.is_null()), "lacks"
        if not len(missing):
            missing, told = table.ids.filter(pc.invert(pc.is_in(table.ids, value_set=first.ids))), "has"
        raise ScoresError(
            f"{table.name} {told} {missing[0].as_py()!r} ({len(missing)} such), which {first.name} does not agree "
            "with; predict the same samples with each"
        )
    return to_numpy(order).astype(np.int64)


def _column_order(first: OpenedTable, table: OpenedTable) -> np.ndarray | None:
    """Column in `table` of each class of `first`; None where they are the same."""
    if table.classes == first.classes:
        return None
    position = {name: column for column, name in enumerate(table.classes)}
    missing = [name for name in first.classes if name not in position]
    if missing or len(table.classes) != len(first.classes):
        odd = missing or [name for name in table.classes if name not in set(first.classes)]
        raise ScoresError(
            f"{table.name} has other classes than {first.name} ({odd[0]!r} is in one of them only, "
            f"{len(odd)} such); an ensemble needs the same classes"
        )
    return np.array([position[name] for name in first.classes])
