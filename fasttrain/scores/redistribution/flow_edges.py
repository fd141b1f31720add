"""Edges of the graph of classes in which `round_exact` moves samples: by whom, and at what loss."""

from collections.abc import Iterator

import numpy as np

Entries = tuple[np.ndarray, np.ndarray, np.ndarray]  # classes, losses in nats, rows
OfOneRow = tuple[np.ndarray, np.ndarray, int]


class Candidates:
    """Classes that samples may move to, with their scores.

    Args:
        classes: (N, k) of each sample.
        values: (N, k) float64 scores; -inf for what is no candidate.
    """

    def __init__(self, classes: np.ndarray, values: np.ndarray) -> None:
        self._classes, self._values = classes, values
        self._wider: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def of(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        """Classes and values of a sample."""
        if row in self._wider:
            return self._wider[row]
        kept = np.isfinite(self._values[row])
        return self._classes[row][kept], self._values[row][kept]

    def of_many(self, rows: np.ndarray) -> Entries:
        """Classes, values and rows of several samples' candidates, one after the other."""
        wide = np.array([row for row in rows.tolist() if row in self._wider], np.int64) if self._wider else rows[:0]
        usual = np.setdiff1d(rows, wide) if len(wide) else rows
        values = self._values[usual]
        kept = np.isfinite(values)
        parts = [(self._classes[usual][kept], values[kept], np.repeat(usual, kept.sum(1)))]
        for row in wide.tolist():
            classes, scores = self._wider[row]
            parts.append((classes, scores, np.full(len(classes), row)))
        return tuple(np.concatenate(column) for column in zip(*parts, strict=True))  # type: ignore[return-value]

    def replace(self, row: int, classes: np.ndarray, values: np.ndarray) -> None:
        """Give a sample other candidates."""
        self._wider[row] = (classes, values)


class _OfOneClass:
    """The cheapest sample of a class for each other class: sorted when made, mended as samples leave and join.

    Most samples have an entry here for each of their candidates, so entries are as narrow as they can be.
    """

    def __init__(self, number: int, label: np.ndarray, own: np.ndarray, candidates: Candidates) -> None:
        self._number, self._label = number, label
        members = np.flatnonzero(label == number)
        classes, values, rows = candidates.of_many(members)
        loss = own[rows] - values
        order = np.lexsort((loss, classes))
        order = order[classes[order] != number]
        classes, self._loss, self._row = classes[order], loss[order], rows[order].astype(np.int32)
        first = np.flatnonzero(np.diff(classes, prepend=-1)).astype(np.int32)
        self._at, self._end = first.copy(), np.append(first[1:], np.int32(len(classes)))
        self.targets, self.losses, self.rows = classes[first].astype(np.int32), self._loss[first], self._row[first]
        self.joined: dict[int, OfOneRow] = {}
        self._room = 4 + int(len(members) ** 0.5)

    def join(self, row: int, loss: np.ndarray, classes: np.ndarray) -> bool:
        """Take a sample in; False if so many have come that sorting anew is cheaper."""
        others = classes != self._number
        self.joined[row] = (classes[others], loss[others], row)
        return len(self.joined) <= self._room

    def leave(self, row: int) -> None:
        """Let a sample go whose label has been changed already."""
        self.joined.pop(row, None)
        for target in np.flatnonzero(self.rows == row).tolist():
            at, end = int(self._at[target]) + 1, int(self._end[target])
            while at < end and self._label[self._row[at]] != self._number:
                at += 1
            self._at[target] = at
            self.losses[target] = self._loss[at] if at < end else np.inf
            self.rows[target] = self._row[at] if at < end else -1


class Edges:
    """Samples' labels, and the edges that they make between classes.

    Args:
        label: (N,) int64, changed by `move`.
        own: (N,) float64 scores at these labels, likewise.
        candidates: of each sample.

    Attributes:
        label, own, candidates: as given.
    """

    def __init__(self, label: np.ndarray, own: np.ndarray, candidates: Candidates) -> None:
        self.label, self.own, self.candidates = label, own, candidates
        self._made: dict[int, _OfOneClass] = {}

    def out_of(self, number: int) -> Iterator[Entries | OfOneRow]:
        """Classes that a class's samples may go to, what is lost by it, and by which sample; each class once a part."""
        made = self._made.get(number)
        if made is None:
            made = self._made[number] = _OfOneClass(number, self.label, self.own, self.candidates)
        yield made.targets, made.losses, made.rows
        yield from made.joined.values()

    def move(self, row: int, to: int) -> None:
        """Change a sample's label to one of its candidates."""
        classes, values = self.candidates.of(row)
        before = int(self.label[row])
        self.label[row], self.own[row] = to, values[np.flatnonzero(classes == to)[0]]
        if before in self._made:
            self._made[before].leave(row)
        if to in self._made and not self._made[to].join(row, self.own[row] - values, classes):
            del self._made[to]

    def widen(self, row: int, classes: np.ndarray, values: np.ndarray) -> None:
        """Give a sample other candidates, its label among them."""
        self.candidates.replace(row, classes, values)
        self._made.pop(int(self.label[row]), None)
