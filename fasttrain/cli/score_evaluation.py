"""The command ``scores evaluate``."""

from pathlib import Path
from typing import Annotated

import typer

from fasttrain.cli.output import JsonOption, finish


def register(group: typer.Typer) -> None:
    """Add the command to the group ``scores``."""
    group.command("evaluate")(evaluate)


def evaluate(
    table: Annotated[Path, typer.Argument(help="A score table (.arrow).")],
    labels: Annotated[
        Path | None, typer.Option(help="True labels: a CSV file with the header id,label [default: the table's own].")
    ] = None,
    per_class: Annotated[bool, typer.Option("--per-class", help="Tell of each class: samples, accuracy, F1.")] = False,
    json: JsonOption = False,
) -> None:
    """Measure a score table: top-1, top-5, loss, macro F1, also of re-distributed labels."""
    from fasttrain.base.console import print_table
    from fasttrain.scores.files.label_files import read_labels
    from fasttrain.scores.measures.evaluate import evaluate as measure
    from fasttrain.scores.table import ScoreTable

    scores = ScoreTable.read(table)
    true = read_labels(labels, scores.ids, scores.classes) if labels is not None else None
    result = measure(scores, true, classes=per_class)
    finish(result, json, hide=("per_class",))
    if per_class and not json:
        columns = ["class", "samples", "predicted", "accuracy", "f1"]
        print_table(
            "classes", columns, [[_shown(entry[column]) for column in columns] for entry in result["per_class"]]
        )


def _shown(value: object) -> str:
    return "-" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)
