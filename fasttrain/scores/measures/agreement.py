"""How far several tables' predictions agree, their samples joined by id and their classes by name."""

from collections.abc import Sequence

import numpy as np

from fasttrain.base.errors import ScoresError
from fasttrain.scores.table import ScoreTable


def predictions_of(table: ScoreTable, first: ScoreTable, name: str) -> np.ndarray:
    """int32 (N,): the class of the highest score in `table`, for the samples of `first`, as a class of `first`.

    Args:
        table: holds the samples of `first`, perhaps more, in any order; the same classes in any order.
        first: says which samples and classes.
        name: of `table`, for messages.

    Raises:
        ScoresError: it lacks a sample, or has other classes.
    """
    predicted = table.argmax()
    if table.ids != first.ids:
        position = {sample: row for row, sample in enumerate(table.ids)}
        missing = [sample for sample in first.ids if sample not in position]
        if missing:
            raise ScoresError(
                f"{name} lacks the sample {missing[0]!r} ({len(missing)} such); predict it with that model"
            )
        predicted = predicted[[position[sample] for sample in first.ids]]
    if table.classes == first.classes:
        return predicted
    number = {label: index for index, label in enumerate(first.classes)}
    odd = set(table.classes) ^ number.keys()
    if odd:
        raise ScoresError(f"{name} has other classes than the first table: {min(odd)!r} is in one of them only")
    return np.array([number[label] for label in table.classes], np.int32)[predicted]


def count_votes(first: ScoreTable, labels: np.ndarray, tables: Sequence[tuple[str, ScoreTable]]) -> np.ndarray:
    """int64 (N,): how many of the named tables predict each label (N,) of the samples of `first`."""
    votes = np.zeros(len(first), np.int64)
    for name, table in tables:
        votes += predictions_of(table, first, name) == labels
    return votes


def agreement_matrix(tables: Sequence[tuple[str, ScoreTable]]) -> np.ndarray:
    """float64 (M, M): share of the samples of the first table that each pair of named tables predicts alike.

    Raises:
        ScoresError: a table lacks a sample of the first one, or has other classes.
    """
    first = tables[0][1]
    predicted = [predictions_of(table, first, name) for name, table in tables]
    return np.array([[float((one == other).mean()) for other in predicted] for one in predicted])
