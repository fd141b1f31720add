"""What is known beforehand of the classes' shares: nothing, counts of a file, or those of the training data."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from fasttrain.base.errors import ScoresError
from fasttrain.scores.table import ScoreTable, refuse_duplicates

UNIFORM, TRAIN, ESTIMATE = "uniform", "train", "estimate"
# Where a table's meta holds the counts of the data that its model was trained on: a mapping of class names to counts.
TRAIN_COUNTS = "train_counts"


def read_prior(prior: str | Path, classes: Sequence[str]) -> np.ndarray:
    """(C,) float64 share of each class, summing to 1.

    Args:
        prior: ``uniform``, or a CSV file with a header and two columns: class name and count (or share).
        classes: names in order.

    Raises:
        ScoresError: the file is malformed, or does not name each class once.
    """
    if str(prior) == UNIFORM:
        return np.full(len(classes), 1 / len(classes))
    return shares(_read_counts(Path(prior)), classes, f"prior {prior}")


def train_prior(table: ScoreTable) -> np.ndarray:
    """(C,) float64 shares of the classes in the training data, which the table's meta holds (`TRAIN_COUNTS`).

    Raises:
        ScoresError: it holds none.
    """
    counts = table.meta.get(TRAIN_COUNTS)
    if not isinstance(counts, Mapping):
        raise ScoresError(
            "the table does not say how many samples of each class its model was trained on; name the .beton file that "
            "it was trained on, or a CSV file of class and count, as --prior"
        )
    return shares(counts, table.classes, "the train counts of the table")


def shares(counts: Mapping[str, float], classes: Sequence[str], where: str) -> np.ndarray:
    """(C,) float64 `counts` in the order of `classes`, scaled to sum 1.

    Raises:
        ScoresError: they do not name each class once, or are no counts.
    """
    missing = [name for name in classes if name not in counts]
    unknown = [name for name in counts if name not in set(classes)]
    if missing or unknown:
        told = f"lacks class {missing[0]!r}" if missing else f"names class {unknown[0]!r}, which the table has not"
        raise ScoresError(f"{where} {told} ({len(missing) + len(unknown)} such)")
    values = np.array([counts[name] for name in classes], np.float64)
    if not np.isfinite(values).all() or (values < 0).any() or values.sum() <= 0:
        raise ScoresError(f"{where} must hold numbers of at least 0, and not all 0")
    return values / values.sum()


def _read_counts(path: Path) -> dict[str, float]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.reader(file) if row]
    except OSError as error:
        raise ScoresError(
            f"prior {path} cannot be read ({error.strerror}); name 'uniform', 'train', 'estimate' or a CSV file"
        ) from None
    except UnicodeDecodeError:
        raise ScoresError(f"prior {path} is not UTF-8 text; name a CSV file of class and count") from None
    if len(rows) < 2 or any(len(row) != 2 for row in rows):
        raise ScoresError(f"prior {path} must be a CSV file with a header and two columns, class and count")
    refuse_duplicates([row[0] for row in rows[1:]], f"prior {path}")
    try:
        return {name: float(value) for name, value in rows[1:]}
    except ValueError as error:
        raise ScoresError(f"prior {path}: {error}") from None
