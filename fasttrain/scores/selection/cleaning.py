"""Labels that are probably wrong, by confident learning on scores of models that have not seen the samples."""

import csv
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, get_args

import numpy as np

from fasttrain.base.atomic import atomic_open
from fasttrain.base.console import say
from fasttrain.base.errors import ScoresError
from fasttrain.scores.table import ScoreTable

HEADER = ("id", "label", "suggested", "score")
Filter = Literal["prune_by_noise_rate", "prune_by_class", "both", "confident_learning", "predicted_neq_given"]
INSTALL = "pip install cleanlab"


@dataclass(frozen=True)
class Suspects:
    """What `find_suspects` found.

    Attributes:
        ids: of all N samples that have a label, table after table.
        classes: their names.
        labels: int64 (N,), as given.
        suggested: int64 (N,), of the highest probability.
        scores: float64 (N,): the model's probability of the given label; low is suspicious.
        rows: int64 (K,): the suspects, worst first.
        unlabelled: ids of samples without a label, which are not judged.
    """

    ids: list[str]
    classes: list[str]
    labels: np.ndarray
    suggested: np.ndarray
    scores: np.ndarray
    rows: np.ndarray
    unlabelled: list[str]


def find_suspects(tables: Sequence[tuple[str, ScoreTable]], method: Filter | str = "prune_by_noise_rate") -> Suspects:
    """Find samples whose label is probably wrong (Northcutt et al., "Confident Learning", JAIR 2021, by cleanlab).

    Args:
        tables: by name; with the labels that are to be doubted. Each sample is in one of them, scored by a model that
            was not trained on it: the validation folds of a cross-validation.
        method: cleanlab's way to choose suspects, as `cleanlab.filter.find_label_issues` calls it.

    The probabilities of all samples are in memory once, and a second time class by class, as float32.

    Raises:
        ScoresError: a table has no labels or other classes, a sample is in two of them, or cleanlab is missing.
    """
    if method not in get_args(Filter):
        raise ScoresError(f"suspects are chosen by {', '.join(get_args(Filter))}, not by {method!r}")
    if not tables:
        raise ScoresError("suspects are found in at least one score table")
    cleanlab = _cleanlab()
    classes = tables[0][1].classes
    columns = [_columns(classes, name, table, tables[0][0]) for name, table in tables]
    _refuse_overlap(tables)
    known = [np.flatnonzero(table.labels >= 0) for _, table in tables]
    probs = np.empty((sum(map(len, known)), len(classes)), np.float32)
    labels = np.empty(len(probs), np.int64)
    start = 0
    for (_, table), column, rows in zip(tables, columns, known, strict=True):
        step = max(1, (1 << 21) // len(classes))
        place = np.argsort(column)  # class of the first table for each class of this one
        for part in np.split(rows, range(step, len(rows), step)):
            stop = start + len(part)
            probs[start:stop] = table.probs(part)[:, column]
            labels[start:stop] = place[table.labels[part]]
            start = stop
    ids = [table.ids[row] for (_, table), rows in zip(tables, known, strict=True) for row in rows]
    unlabelled = [name for _, table in tables for name, label in zip(table.ids, table.labels, strict=True) if label < 0]
    with warnings.catch_warnings(record=True) as told:
        wrong = np.flatnonzero(cleanlab.filter.find_label_issues(labels, probs, filter_by=method, n_jobs=1))
    for message in dict.fromkeys(str(warning.message) for warning in told):
        say(f"cleanlab: {message}")
    scores = cleanlab.rank.get_label_quality_scores(labels, probs, method="self_confidence").astype(np.float64)
    order = wrong[np.lexsort(([ids[row] for row in wrong], scores[wrong]))] if len(wrong) else wrong
    return Suspects(ids, classes, labels, probs.argmax(1), scores, order, unlabelled)


def write_suspects(suspects: Suspects, out: str | Path, kept: str | Path | None = None) -> dict[str, Any]:
    """Write the suspects as a CSV file ``id,label,suggested,score``, worst first.

    Args:
        suspects: from `find_suspects`.
        out: the file.
        kept: file for the ids of all other samples, one a line, as ``fasttrain build --ids`` takes them.

    Returns:
        {samples, unlabelled, suspects, out, kept, per_class: {name: suspects labelled so}, pairs: the most frequent
        [{label, suggested, count}]}.
    """
    names, wrong = suspects.classes, suspects.rows
    given = [names[label] for label in suspects.labels[wrong]]
    better = [names[label] for label in suspects.suggested[wrong]]
    with atomic_open(out, newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(HEADER)
        for row, label, suggestion in zip(wrong, given, better, strict=True):
            writer.writerow((suspects.ids[row], label, suggestion, repr(float(suspects.scores[row]))))
    if kept is not None:
        dropped = {suspects.ids[row] for row in wrong}
        with atomic_open(kept) as file:
            everything = chain(suspects.ids, suspects.unlabelled)
            file.writelines(f"{name}\n" for name in everything if name not in dropped)
    pairs = Counter(zip(given, better, strict=True)).most_common(10)
    counts = np.bincount(suspects.labels[wrong], minlength=len(names)).tolist()
    return {
        "samples": len(suspects.ids),
        "unlabelled": len(suspects.unlabelled),
        "suspects": len(wrong),
        "out": str(out),
        "kept": None if kept is None else str(kept),
        "per_class": dict(zip(names, counts, strict=True)),
        "pairs": [{"label": label, "suggested": other, "count": count} for (label, other), count in pairs],
    }


def _cleanlab() -> ModuleType:
    try:
        import cleanlab.filter
        import cleanlab.rank
    except ImportError as error:
        raise ScoresError(f"confident learning needs cleanlab, which is not installed; {INSTALL} ({error})") from None
    return cleanlab


def _columns(classes: list[str], name: str, table: ScoreTable, first: str) -> np.ndarray:
    """Column in `table` of each class; it must have labels, too."""
    if not (table.labels >= 0).any():
        raise ScoresError(
            f"{name} holds no labels, so none can be doubted; predict labelled data, or import it with --labels"
        )
    if set(table.classes) != set(classes):
        odd = min(set(table.classes) ^ set(classes))
        raise ScoresError(f"{name} has other classes than {first}: {odd!r} is in one of them only")
    position = {label: column for column, label in enumerate(table.classes)}
    return np.array([position[label] for label in classes])


def _refuse_overlap(tables: Sequence[tuple[str, ScoreTable]]) -> None:
    """Raise a ScoresError if a sample is in two tables: one of their models has probably been trained on it."""
    where: dict[str, str] = {}
    for name, table in tables:
        twice = [sample for sample in table.ids if sample in where]
        if twice:
            raise ScoresError(
                f"the folds {where[twice[0]]} and {name} overlap: both hold {twice[0]!r} ({len(twice)} such); a "
                "sample's scores must come from the one model that was not trained on it"
            )
        where.update(dict.fromkeys(table.ids, name))
