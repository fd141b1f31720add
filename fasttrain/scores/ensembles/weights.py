"""Weights of an ensemble that need no labels: given ones, equal ones, and by stored validation figures."""

from collections.abc import Sequence

import numpy as np

from fasttrain.base.errors import ScoresError
from fasttrain.scores.files.opened import OpenedTable


def given_weights(tables: Sequence[OpenedTable], values: Sequence[float], *, scale: bool) -> np.ndarray:
    """(M,) float64 the numbers that were given, scaled to sum 1 if asked for."""
    weights = np.asarray(values, np.float64)
    if weights.shape != (len(tables),):
        raise ScoresError(f"{len(weights)} weights do not fit {len(tables)} tables; give one a table")
    if not np.isfinite(weights).all() or (weights < 0).any() or weights.sum() <= 0:
        raise ScoresError("weights must be numbers of at least 0, and not all 0")
    return weights / weights.sum() if scale else weights


def given_temperatures(tables: Sequence[OpenedTable], values: Sequence[float]) -> np.ndarray:
    """(M,) float64 the temperatures that were given."""
    temperatures = np.asarray(values, np.float64)
    if temperatures.shape != (len(tables),):
        raise ScoresError(f"{len(temperatures)} temperatures do not fit {len(tables)} tables; give one a table")
    if not np.isfinite(temperatures).all() or (temperatures <= 0).any():
        raise ScoresError("temperatures must be numbers above 0")
    return temperatures


def uniform_weights(tables: Sequence[OpenedTable]) -> np.ndarray:
    """(M,) float64 ``1 / M``."""
    return np.full(len(tables), 1 / len(tables))


def accuracy_weights(tables: Sequence[OpenedTable], factor: float) -> np.ndarray:
    """(M,) float64 ``(top1 / smallest top1) ** factor``, scaled to sum 1 (the 1st place of the ACCV 2022 challenge).

    The figures are those stored with the tables, and from another set than the one that is ensembled.
    """
    accuracies = np.array([_validation_top1(table) for table in tables])
    weights = (accuracies / accuracies.min()) ** factor
    if not np.isfinite(weights).all():
        raise ScoresError(f"a factor of {factor:g} is too large for accuracies so far apart; take a smaller one")
    return weights / weights.sum()


def _validation_top1(table: OpenedTable) -> float:
    """The model's top-1 on its validation set, which must be another set than the one that is ensembled."""
    validation = table.meta.get("validation") or {}
    top1 = validation.get("val_top1")
    if not top1:
        raise ScoresError(
            f"{table.name} stores no validation top-1 of its model; give numbers as weights, train with --val, "
            "or say it at the import (--val-top1)"
        )
    measured_on = validation.get("data_fingerprint")
    if measured_on is not None and measured_on == table.meta.get("data_fingerprint"):
        raise ScoresError(
            f"the validation figure of {table.name} was measured on the very samples that are ensembled, so "
            "weights from it would have seen their labels; predict another set, or use --weights uniform"
        )
    return float(top1)
