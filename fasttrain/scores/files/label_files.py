"""Files of labels ``id,label,confidence,source,round``: read, merged over rounds, and written."""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv

from fasttrain.base.atomic import atomic_open
from fasttrain.base.errors import ScoresError
from fasttrain.scores.table import refuse_duplicates

HEADER = ("id", "label", "confidence", "source", "round")
TRUE_ROUND = 0  # of true labels
UNKNOWN = ("", "-1")


class Label(NamedTuple):
    """The label of one sample: class index, confidence (1 for a true one), where it is from, round of self-training."""

    label: int
    confidence: float
    source: str
    round: int


@dataclass
class MergedLabels:
    """Labels of several files and rounds, one a sample.

    A true label (of round 0) is never overwritten; of two pseudo-labels that of the newer round wins, of two of the
    same round the one that was added later.

    Attributes:
        classes: their names.
        labels: by sample id, in the order in which samples were first added.
        conflicts: how often a label met another one for the same sample: ``true`` with a true label on either side,
            ``rounds`` between pseudo-labels.
    """

    classes: list[str]
    labels: dict[str, Label] = field(default_factory=dict)
    conflicts: dict[str, int] = field(default_factory=lambda: {"true": 0, "rounds": 0})

    def add(self, rows: Iterable[tuple[str, Label]]) -> None:
        """Merge further labels in."""
        for name, new in rows:
            old = self.labels.get(name)
            if old is not None and old.label != new.label:
                self.conflicts["true" if TRUE_ROUND in (old.round, new.round) else "rounds"] += 1
            if old is None or (old.round != TRUE_ROUND and (new.round == TRUE_ROUND or new.round >= old.round)):
                self.labels[name] = new

    @property
    def newest_round(self) -> int:
        """The highest round among the labels, 0 without any."""
        return max((label.round for label in self.labels.values()), default=TRUE_ROUND)

    def counts(self) -> dict[int, np.ndarray]:
        """Labels of each class int64 (C,), by round."""
        pairs = np.array([(label.round, label.label) for label in self.labels.values()], np.int64).reshape(-1, 2)
        return {
            int(number): np.bincount(pairs[pairs[:, 0] == number, 1], minlength=len(self.classes))
            for number in np.unique(pairs[:, 0])
        }

    def write(self, path: str | Path) -> None:
        """Write all labels, true ones first, then round by round; the classes by name."""
        order = sorted(self.labels.items(), key=lambda pair: pair[1].round)  # stable
        with atomic_open(path, newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(HEADER)
            for name, label in order:
                cells = (self.classes[label.label], repr(label.confidence), label.source, label.round)
                writer.writerow((name, *cells))


def read_label_file(path: str | Path, classes: Sequence[str], *, true: bool = False) -> Iterable[tuple[str, Label]]:
    """The labels in a CSV file; samples whose label is unknown (empty, -1) are left out.

    Args:
        path: header ``id,label``, and for pseudo-labels perhaps ``confidence``, ``source`` and ``round`` (by default 1,
            the file's name, and 1).
        classes: names of the classes; labels are among them, or all of them indices.
        true: these are true labels, whatever the other columns say.

    Raises:
        ScoresError: it cannot be read, lists a sample twice, or has a label that is none of the classes.
    """
    columns = _read_columns(path)
    ids = columns["id"]
    refuse_duplicates(ids, f"labels {path}")
    numbers = class_numbers(columns["label"], classes, f"labels {path}", ids)
    known = np.flatnonzero(numbers >= 0)
    origin, rounds = Path(path).name, np.full(len(ids), TRUE_ROUND if true else 1)
    confidence, sources = np.ones(len(ids)), [origin] * len(ids)
    if not true:
        confidence = _numbers(columns, "confidence", confidence, path)
        rounds = _numbers(columns, "round", rounds, path).astype(np.int64)
        sources = columns.get("source", sources)
    return ((ids[i], Label(int(numbers[i]), float(confidence[i]), sources[i], int(rounds[i]))) for i in known)


def read_labels(path: str | Path, ids: Sequence[str], classes: Sequence[str]) -> np.ndarray:
    """True labels (N,) int32 of some samples from a CSV file ``id,label``; -1 for those that it does not tell of.

    Raises:
        ScoresError: it cannot be read, lists a sample twice, has a label that is none of the classes, or tells of none.
    """
    columns = _read_columns(path)
    refuse_duplicates(columns["id"], f"labels {path}")
    numbers = class_numbers(columns["label"], classes, f"labels {path}", columns["id"])
    known = dict(zip(columns["id"], numbers.tolist(), strict=True))
    labels = np.array([known.get(name, -1) for name in ids], np.int32)
    if (labels < 0).all():
        raise ScoresError(f"labels {path} names none of the samples of the scores ({ids[0]!r}, …)")
    return labels


def _read_columns(path: str | Path) -> dict[str, list[str]]:
    try:
        texts = pa.csv.ConvertOptions(column_types=dict.fromkeys(HEADER, pa.string()))
        table = pa.csv.read_csv(path, convert_options=texts)
    except FileNotFoundError:
        raise ScoresError(f"labels {path}: no such file") from None
    except (OSError, pa.ArrowInvalid) as error:
        raise ScoresError(f"labels {path} cannot be read as CSV: {error}") from None
    if not {"id", "label"} <= set(table.column_names):
        others = ", ".join(HEADER[2:])
        raise ScoresError(f"labels {path} must be a CSV file with the columns id and label (and {others})")
    return {name: table[name].to_pylist() for name in HEADER if name in table.column_names}


def class_numbers(values: Sequence[str], classes: Sequence[str], where: str | Path, ids: Sequence[str]) -> np.ndarray:
    """int64 (N,), -1 where unknown (empty, -1): labels are names of classes, or if any is none, indices all of them.

    Args:
        values: labels of N samples.
        classes: their names.
        where: they stand, for messages.
        ids: (N,) likewise.

    Raises:
        ScoresError: a label is neither.
    """
    unknown = set(UNKNOWN) - set(classes)
    for names in (classes, [str(index) for index in range(len(classes))]):
        number = {name: index for index, name in enumerate(names)} | dict.fromkeys(unknown, -1)
        found = [number.get(value) for value in values]
        if None not in found:
            return np.array(found, np.int64)
    known = unknown | set(classes)
    row = next(row for row, value in enumerate(values) if value not in known)
    raise ScoresError(f"{where}: {values[row]!r} of {ids[row]!r} is none of the table's {len(classes)} classes")


def _numbers(columns: dict[str, list[str]], name: str, default: np.ndarray, path: str | Path) -> np.ndarray:
    if name not in columns:
        return default
    try:
        return np.array([float(value) for value in columns[name]])
    except ValueError as error:
        raise ScoresError(f"labels {path}: the column {name} does not hold numbers ({error})") from None
