"""Confident predictions as labels for another round of training."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fasttrain.base.errors import ScoresError
from fasttrain.scores.files.label_files import Label, MergedLabels, read_label_file
from fasttrain.scores.measures.agreement import count_votes
from fasttrain.scores.selection.rules import PseudoRules, Selected, select
from fasttrain.scores.table import ScoreTable


def write_pseudo_labels(
    table: ScoreTable,
    out: str | Path,
    rules: PseudoRules,
    *,
    use: str | None = None,
    agree: Sequence[tuple[str, ScoreTable]] = (),
    votes: int | None = None,
    source: str = "",
    round_number: int | None = None,
    merge: Sequence[str | Path] = (),
    true_labels: str | Path | None = None,
) -> dict[str, Any]:
    """Write samples with their labels as a CSV file ``id,label,confidence,source,round``; labels are class names.

    Args:
        table: an ensemble, re-distributed or not.
        out: the file.
        rules: which predictions are taken over.
        use: ``argmax`` with its probability, ``assigned`` with that of the transport plan; by default the latter where
            it is there. Margins are those of the scores in both cases.
        agree: further tables by name; kept are samples whose label at least `votes` of them predict (default: all).
        source: where the labels come from, for the file's column.
        round_number: round of self-training, likewise; by default the one after the newest of `merge`, or 1.
        merge: files of earlier rounds, whose labels are kept where there is no newer one (see `MergedLabels`).
        true_labels: file ``id,label`` of labels that are never overwritten, written as round 0 with confidence 1.

    Returns:
        Of the new labels {samples, kept, per_class: {name: count}, round, top1 (of those whose true label the table
        knows), thresholds: {name: least confidence}, left_out: {rule: count}, filled, short: {name: count}}, see
        `Selected`; of the file written {written, per_round: {round: {name: count}}, conflicts: {true, rounds}}.

    Raises:
        ScoresError: rules, tables or files do not fit the table.
    """
    if votes is not None and not 1 <= votes <= len(agree):
        raise ScoresError(
            f"{votes} votes of {len(agree)} tables cannot be asked for; give more tables to agree, or fewer"
        )
    merged = MergedLabels(table.classes)
    if true_labels is not None:
        merged.add(read_label_file(true_labels, table.classes, true=True))
    for path in merge:
        merged.add(read_label_file(path, table.classes))
    labels = table.predictions(use)
    confidence, margin = _confidence(table, labels, rules.min_margin is not None)
    agreed = count_votes(table, labels, agree) >= (votes or len(agree)) if agree else None
    chosen = select(rules, table.classes, table.ids, labels, confidence, margin, agreed)
    number = merged.newest_round + 1 if round_number is None else round_number
    merged.add((table.ids[r], Label(int(labels[r]), float(confidence[r]), source, number)) for r in chosen.rows)
    merged.write(out)
    return _report(table, labels, chosen, merged, number)


def _confidence(table: ScoreTable, labels: np.ndarray, with_margin: bool) -> tuple[np.ndarray, np.ndarray | None]:
    """float64 (N,): probability of each label, of the transport plan if the labels are its; its lead, if asked for."""
    planned = labels is table.assigned and table.assigned_p is not None
    confidence = table.assigned_p.astype(np.float64) if planned else np.empty(len(table))  # type: ignore[union-attr]
    if planned and not with_margin:
        return confidence, None
    margin = np.empty(len(table))
    for rows in table.row_blocks():
        probs = table.probs(rows)
        columns = labels[rows, None].astype(np.int64)
        own = np.take_along_axis(probs, columns, 1)[:, 0]
        if not planned:
            confidence[rows] = own
        if with_margin:
            np.put_along_axis(probs, columns, 0.0, 1)
            margin[rows] = own - probs.max(1)
    return confidence, margin if with_margin else None


def _report(
    table: ScoreTable, labels: np.ndarray, chosen: Selected, merged: MergedLabels, number: int
) -> dict[str, Any]:
    def named(counts: np.ndarray) -> dict[str, int]:
        return dict(zip(table.classes, counts.tolist(), strict=True))

    kept = labels[chosen.rows]
    report: dict[str, Any] = {
        "samples": len(table),
        "kept": len(kept),
        "per_class": named(np.bincount(kept, minlength=len(table.classes))),
        "round": number,
    }
    true = table.labels[chosen.rows]
    if (true >= 0).any():
        report["top1"] = float((kept == true)[true >= 0].mean())
    thresholds = [None if np.isnan(value) else value for value in chosen.thresholds.tolist()]
    return report | {
        "thresholds": dict(zip(table.classes, thresholds, strict=True)),
        "left_out": chosen.left_out,
        "filled": chosen.filled,
        "short": chosen.short,
        "written": len(merged.labels),
        "per_round": {str(key): named(counts) for key, counts in merged.counts().items()},
        "conflicts": merged.conflicts,
    }
