"""What is known about how many samples each class has: priors and bounds."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fasttrain.base.errors import ScoresError
from fasttrain.scores.sinkhorn import Marginals
from fasttrain.scores.table import refuse_duplicates

UNIFORM = "uniform"


def read_prior(prior: str | Path, classes: Sequence[str]) -> np.ndarray:
    """(C,) float64 share of each class, summing to 1.

    Args:
        prior: ``uniform``, or a CSV file with a header and two columns: class name and count (or probability).
        classes: names in order.

    Raises:
        ScoresError: the file is malformed, or does not name each class once.
    """
    if str(prior) == UNIFORM:
        return np.full(len(classes), 1 / len(classes))
    values = _read_counts(Path(prior))
    missing = [name for name in classes if name not in values]
    unknown = [name for name in values if name not in set(classes)]
    if missing or unknown:
        told = f"lacks class {missing[0]!r}" if missing else f"names class {unknown[0]!r}, which the table has not"
        raise ScoresError(f"prior {prior} {told} ({len(missing) + len(unknown)} such)")
    counts = np.array([values[name] for name in classes])
    if not np.isfinite(counts).all() or (counts < 0).any() or counts.sum() <= 0:
        raise ScoresError(f"prior {prior} must hold numbers of at least 0, and not all 0")
    return counts / counts.sum()


def _read_counts(path: Path) -> dict[str, float]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.reader(file) if row]
    except OSError as error:
        raise ScoresError(f"prior {path} cannot be read ({error.strerror}); name 'uniform' or a CSV file") from None
    if len(rows) < 2 or any(len(row) != 2 for row in rows):
        raise ScoresError(f"prior {path} must be a CSV file with a header and two columns, class and count")
    refuse_duplicates([row[0] for row in rows[1:]], f"prior {path}")
    try:
        return {name: float(value) for name, value in rows[1:]}
    except ValueError as error:
        raise ScoresError(f"prior {path}: {error}") from None


def bounds(prior: np.ndarray, samples: int, lower: str, upper: str, equality: bool) -> Marginals:
    """Bounds of the class counts.

    Args:
        prior: (C,) share of each class.
        samples: N.
        lower, upper: ``0.9x`` is a factor of ``prior * N``, ``12`` a count for each class.
        equality: exactly ``prior * N`` instead.

    Raises:
        ScoresError: malformed, or no plan can keep them.
    """
    expected = prior * samples
    if equality:
        return Marginals(expected, expected)
    marginals = Marginals(_bound(lower, expected), _bound(upper, expected))
    marginals.check(samples)
    return marginals


def _bound(text: str, expected: np.ndarray) -> np.ndarray:
    is_factor = text.endswith("x")
    try:
        value = float(text.removesuffix("x"))
    except ValueError:
        value = -1.0
    if not (np.isfinite(value) and value >= 0):
        raise ScoresError(f"a bound is a factor such as 0.9x, or a count such as 12, not {text!r}")
    # A class of prior 0 stays empty whatever count the others are given.
    return expected * value if is_factor else np.where(expected > 0, value, 0.0)
