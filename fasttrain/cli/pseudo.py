"""Labels for another round of training: the command ``pseudo``."""

from pathlib import Path
from typing import Annotated

import typer

from fasttrain.cli.output import JsonOption, Table, UseOption, finish


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command("pseudo")(pseudo)


def pseudo(
    table: Table,
    threshold: Annotated[float, typer.Option(help="Kept are samples with a confidence above it.")],
    out: Annotated[Path, typer.Option(help="The CSV file to write: id,label,confidence,source,round.")],
    use: UseOption = None,
    source: Annotated[str | None, typer.Option(help="For the column source [default: the table's file name].")] = None,
    round_: Annotated[int, typer.Option("--round", help="For the column round: round of self-training.")] = 1,
    json: JsonOption = False,
) -> None:
    """Write the confident predictions as labels for another round of training."""
    from fasttrain.scores.pseudo import write_pseudo_labels
    from fasttrain.scores.table import ScoreTable

    origin = table.name if source is None else source
    result = write_pseudo_labels(
        ScoreTable.read(table), out, threshold=threshold, use=use, source=origin, round_number=round_
    )
    finish(result, json)
