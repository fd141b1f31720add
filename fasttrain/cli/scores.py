"""Commands about score tables: the group ``scores``, and submit."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from fasttrain.cli import score_evaluation
from fasttrain.cli.adjust import adjust
from fasttrain.cli.output import JsonOption, Table, UseOption, finish
from fasttrain.cli.show import show


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    group = typer.Typer(help="Import, export, adjust and look into score tables.", no_args_is_help=True)
    group.command("import")(import_)
    group.command("export")(export)
    group.command("show")(show)
    group.command("adjust")(adjust)
    score_evaluation.register(group)
    app.add_typer(group, name="scores")
    app.command("submit")(submit)


def import_(
    source: Annotated[Path, typer.Argument(help=".csv, .csv.gz, .npy, .npz or .pkl (read without running code).")],
    out: Annotated[Path, typer.Option(help="The score table to write (.arrow).")],
    kind: Annotated[Literal["logits", "log_probs", "probs"], typer.Option(help="What the scores are.")],
    classes: Annotated[
        Path | None, typer.Option(help="Class names, one a line, in column order [default: the header, or 0, 1, …].")
    ] = None,
    labels: Annotated[Path | None, typer.Option(help="True labels: a CSV file with the header id,label.")] = None,
    ids: Annotated[Path | None, typer.Option(help="Ids, one a line, for NumPy files without them.")] = None,
    val_top1: Annotated[
        float | None, typer.Option(help="The model's top-1 (0-1) on its validation set, for --weights accuracy.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Turn a file of scores into a score table."""
    from fasttrain.scores.files.imports import import_scores

    table = import_scores(source, kind, classes=classes, labels=labels, ids=ids, val_top1=val_top1)
    table.write(out)
    finish({"samples": len(table), "classes": len(table.classes), "out": str(out)}, json)


def export(
    table: Table,
    out: Annotated[Path, typer.Option(help=".csv, .json, .npz or .pkl; .csv and .json also with .zip or .gz.")],
    header: Annotated[bool, typer.Option("--header/--no-header", help="Header line of a CSV.")] = True,
    json: JsonOption = False,
) -> None:
    """Write a score table for other programs."""
    from fasttrain.scores.files.exports import export_scores
    from fasttrain.scores.table import ScoreTable

    finish(export_scores(ScoreTable.read(table), out, header=header), json)


def submit(
    table: Table,
    out: Annotated[Path, typer.Option(help="The file to write; a name that ends in .zip is zipped.")],
    format_: Annotated[
        Literal["csv", "json"], typer.Option("--format", help="id,label lines, or {id: label}.")
    ] = "csv",
    use: UseOption = None,
    label_as: Annotated[
        Literal["name", "index"] | None,
        typer.Option(help="How labels are written [default: names in CSV, indices in JSON]."),
    ] = None,
    header: Annotated[bool, typer.Option("--header/--no-header", help="Header line of a CSV.")] = True,
    columns: Annotated[str, typer.Option(help="The two names in that line.")] = "id,label",
    names: Annotated[
        Literal["id", "file"], typer.Option(help="Samples are called by their ids, or by the file name at their end.")
    ] = "id",
    indent: Annotated[
        int | None, typer.Option(min=0, help="Blanks before each sample's line of JSON [default: all in one line].")
    ] = None,
    zip_: Annotated[bool, typer.Option("--zip", help="Zip it, with .zip added to the name if need be.")] = False,
    json: JsonOption = False,
) -> None:
    """Write a submission."""
    from fasttrain.scores.files.submit import write_submission
    from fasttrain.scores.table import ScoreTable

    first, _, second = columns.partition(",")
    if not first or not second or "," in second:
        raise typer.BadParameter("two names are wanted, as id,label", param_hint="--columns")
    result = write_submission(
        ScoreTable.read(table),
        out,
        file_format=format_,
        use=use,
        label_as=label_as,
        header=header,
        columns=(first, second),
        zipped=zip_,
        names=names,
        indent=indent,
    )
    finish(result, json)
