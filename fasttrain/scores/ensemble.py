"""Many models' score tables as one."""

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np

from fasttrain.base.errors import ScoresError
from fasttrain.scores.table import ScoreTable, log_normalise

Space = Literal["logits", "probs", "log_probs"]
DEFAULT_FACTOR = 1.0


def ensemble(
    tables: Sequence[ScoreTable],
    *,
    weights: str | Sequence[float] = "uniform",
    space: str = "probs",
    factor: float = DEFAULT_FACTOR,
) -> ScoreTable:
    """Weighted combination of tables, joined by id in the order of the first one.

    Args:
        tables: at least one; the same ids and classes in each, in any order.
        weights: ``uniform`` (each 1 / M); numbers, used as they are in logits space and scaled to sum 1 in the other
            two; or ``accuracy``: ``(top1 / smallest top1) ** factor``, scaled to sum 1, from the validation figure
            stored with each table.
        space: what is averaged: ``logits`` (gives logits), ``probs`` (gives probs), or ``log_probs`` (the weighted
            geometric mean, normalised; gives log_probs).
        factor: exponent of ``accuracy`` (25 in the system that the formula is from).

    Raises:
        ScoresError: the tables do not fit together, or have not what the weights or the space need.
    """
    if space not in get_args(Space):
        raise ScoresError(f"an ensemble is taken in {', '.join(get_args(Space))}, not in {space!r}")
    if not tables:
        raise ScoresError("an ensemble needs at least one score table")
    orders = [_row_order(tables[0], table, number) for number, table in enumerate(tables)]
    columns = [_column_order(tables[0], table, number) for number, table in enumerate(tables)]
    if space == "logits":
        _require_logits(tables)
    shares = _weights(tables, weights, factor, scale=space != "logits")
    scores = np.empty(tables[0].scores.shape, np.float32)
    for block in tables[0].row_blocks():
        # float64: thresholds on ensembles of published scores are only met exactly without rounding in between
        total = np.zeros(scores[block].shape)
        for table, order, column, share in zip(tables, orders, columns, shares, strict=True):
            if share == 0:  # else its -inf would make NaN
                continue
            total += share * _values(table, order[block], space)[:, column]
        scores[block] = log_normalise(total) if space == "log_probs" else total
    return ScoreTable(
        ids=tables[0].ids,
        scores=scores,
        classes=tables[0].classes,
        kind=space,  # type: ignore[arg-type]  # checked above
        labels=_joined_labels(tables, orders, columns),
        meta={
            "method": "ensemble",
            "space": space,
            "weights": [float(share) for share in shares],
            "models": [table.meta.get("model") for table in tables],
            "data_fingerprint": tables[0].meta.get("data_fingerprint"),
        },
    )


def _row_order(first: ScoreTable, table: ScoreTable, number: int) -> np.ndarray:
    """Row in `table` of each id of `first`."""
    if table.ids == first.ids:
        return np.arange(len(first))
    position = {name: row for row, name in enumerate(table.ids)}
    missing = [name for name in first.ids if name not in position]
    if missing or len(table) != len(first):
        known = set(first.ids)
        extra = [name for name in table.ids if name not in known]
        told = f"lacks {missing[0]!r} ({len(missing)} such)" if missing else f"has {extra[0]!r} ({len(extra)} such)"
        raise ScoresError(
            f"table {number + 1} {told}, which the first table does not agree with; predict the same samples with each"
        )
    return np.array([position[name] for name in first.ids])


def _column_order(first: ScoreTable, table: ScoreTable, number: int) -> np.ndarray:
    """Column in `table` of each class of `first`."""
    if table.classes == first.classes:
        return np.arange(len(first.classes))
    position = {name: column for column, name in enumerate(table.classes)}
    missing = [name for name in first.classes if name not in position]
    if missing or len(table.classes) != len(first.classes):
        odd = missing or [name for name in table.classes if name not in set(first.classes)]
        raise ScoresError(
            f"table {number + 1} has other classes than the first ({odd[0]!r} is in one of them only, "
            f"{len(odd)} such); an ensemble needs the same classes"
        )
    return np.array([position[name] for name in first.classes])


def _require_logits(tables: Sequence[ScoreTable]) -> None:
    for number, table in enumerate(tables):
        if table.kind != "logits":
            raise ScoresError(
                f"table {number + 1} holds {table.kind}, which cannot become logits; use --space probs or log_probs"
            )


def _values(table: ScoreTable, rows: np.ndarray, space: str) -> np.ndarray:
    """(n, C) float64 scores of `rows` in a space."""
    if space == "logits":
        return table.scores[rows].astype(np.float64)
    return table.probs(rows) if space == "probs" else table.log_probs(rows)


def _weights(tables: Sequence[ScoreTable], weights: str | Sequence[float], factor: float, scale: bool) -> np.ndarray:
    if weights == "uniform":
        return np.full(len(tables), 1 / len(tables))
    if weights == "accuracy":
        accuracies = np.array([_validation_top1(table, number) for number, table in enumerate(tables)])
        values, scale = (accuracies / accuracies.min()) ** factor, True
    elif isinstance(weights, str):
        raise ScoresError(f"weights are 'uniform', 'accuracy' or one number a table, not {weights!r}")
    else:
        values = np.asarray(weights, np.float64)
    if values.shape != (len(tables),):
        raise ScoresError(f"{len(values)} weights do not fit {len(tables)} tables; give one a table")
    if not np.isfinite(values).all() or (values < 0).any() or values.sum() <= 0:
        raise ScoresError("weights must be numbers of at least 0, and not all 0")
    return values / values.sum() if scale else values


def _validation_top1(table: ScoreTable, number: int) -> float:
    """The model's top-1 on its validation set, which must be another set than the one that is ensembled."""
    validation = table.meta.get("validation") or {}
    top1 = validation.get("val_top1")
    if not top1:
        raise ScoresError(
            f"table {number + 1} stores no validation top-1 of its model; give numbers as weights, train with --val, "
            "or say it at the import (--val-top1)"
        )
    measured_on = validation.get("data_fingerprint")
    if measured_on is not None and measured_on == table.meta.get("data_fingerprint"):
        raise ScoresError(
            f"the validation figure of table {number + 1} was measured on the very samples that are ensembled, so "
            "weights from it would have seen their labels; predict another set, or use --weights uniform"
        )
    return float(top1)


def _joined_labels(
    tables: Sequence[ScoreTable], orders: Sequence[np.ndarray], columns: Sequence[np.ndarray]
) -> np.ndarray:
    """The first known label of each sample; tables that contradict each other are an error."""
    labels = tables[0].labels.copy()
    for table, order, column in zip(tables[1:], orders[1:], columns[1:], strict=True):
        position = np.argsort(column).astype(np.int32)  # column of the first table for each column of this one
        other = table.labels[order]
        other = np.where(other >= 0, position[np.maximum(other, 0)], -1)
        clash = (labels >= 0) & (other >= 0) & (labels != other)
        if clash.any():
            name = tables[0].ids[int(np.flatnonzero(clash)[0])]
            raise ScoresError(f"the tables know different true labels of {name!r} ({int(clash.sum())} such)")
        labels = np.where(labels >= 0, labels, other)
    return labels
