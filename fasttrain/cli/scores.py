"""Commands about score tables: the group ``scores``, and ensemble, redistribute, pseudo, submit."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from fasttrain.cli import score_evaluation
from fasttrain.cli.output import JsonOption, finish

Table = Annotated[Path, typer.Argument(help="A score table (.arrow).")]
UseOption = Annotated[
    Literal["argmax", "assigned"] | None,
    typer.Option(
        help="Labels of the highest score, or those of a re-distribution [default: assigned where it is there]."
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    group = typer.Typer(help="Import, export and look into score tables.", no_args_is_help=True)
    group.command("import")(import_)
    group.command("export")(export)
    group.command("show")(show)
    score_evaluation.register(group)
    app.add_typer(group, name="scores")
    app.command("ensemble")(ensemble)
    app.command("redistribute")(redistribute)
    app.command("pseudo")(pseudo)
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
    from fasttrain.scores.imports import import_scores

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
    from fasttrain.scores.exports import export_scores
    from fasttrain.scores.table import ScoreTable

    finish(export_scores(ScoreTable.read(table), out, header=header), json)


def show(
    table: Table, rows: Annotated[int, typer.Option(help="Samples to show.")] = 5, json: JsonOption = False
) -> None:
    """Look into a score table."""
    from fasttrain.scores.exports import describe
    from fasttrain.scores.table import ScoreTable

    finish(describe(ScoreTable.read(table), rows), json)


def ensemble(
    tables: Annotated[list[Path], typer.Argument(help="Score tables of the same samples and classes.")],
    out: Annotated[Path, typer.Option(help="The score table to write (.arrow).")],
    weights: Annotated[
        str, typer.Option(help="uniform, one number a table (0.35,0.30,0.35), or accuracy (stored validation top-1).")
    ] = "uniform",
    space: Annotated[Literal["logits", "probs", "log_probs"], typer.Option(help="What is averaged.")] = "probs",
    factor: Annotated[float | None, typer.Option(help="Exponent of --weights accuracy [default: 1].")] = None,
    json: JsonOption = False,
) -> None:
    """Combine the scores of several models."""
    from fasttrain.scores.ensemble import DEFAULT_FACTOR
    from fasttrain.scores.ensemble import ensemble as combine
    from fasttrain.scores.table import ScoreTable

    if factor is not None and weights != "accuracy":
        raise typer.BadParameter("an exponent belongs to --weights accuracy", param_hint="--factor")
    chosen = weights if weights in ("uniform", "accuracy") else _numbers(weights)
    exponent = DEFAULT_FACTOR if factor is None else factor
    result = combine([ScoreTable.read(path) for path in tables], weights=chosen, space=space, factor=exponent)
    result.write(out)
    top1 = result.accuracy(result.argmax())
    figures = {"samples": len(result), "tables": len(tables), "weights": result.meta["weights"]}
    finish(figures if top1 is None else {**figures, "top1": top1}, json)


def redistribute(
    table: Table,
    out: Annotated[Path, typer.Option(help="The score table to write (.arrow).")],
    method: Annotated[
        Literal["sinkhorn", "greedy-k"], typer.Option(help="Optimal transport, or the published heuristic as baseline.")
    ] = "sinkhorn",
    prior: Annotated[
        str | None,
        typer.Option(help="Share of each class: uniform, or a CSV file of class and count [default: uniform]."),
    ] = None,
    equality: Annotated[bool, typer.Option("--equality", help="Counts exactly as the prior says.")] = False,
    lower: Annotated[
        str | None,
        typer.Option(help="Least count of a class: a factor of prior × N, or a count [default: 0.9x]."),
    ] = None,
    upper: Annotated[str | None, typer.Option(help="Largest count of a class, likewise [default: 1.1x].")] = None,
    eps: Annotated[float | None, typer.Option(help="Temperature on log-probabilities [default: 0.2].")] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(help="Marginal error at which to stop, as a share of the samples [default: 0.001]."),
    ] = None,
    round_: Annotated[
        Literal["argmax", "greedy", "exact"] | None,
        typer.Option("--round", help="From plan to labels; greedy and exact keep the bounds [default: argmax]."),
    ] = None,
    k: Annotated[
        int | None, typer.Option("--k", help="For greedy-k: samples that a class should have at least.")
    ] = None,
    device: Annotated[
        Literal["cpu", "cuda"] | None, typer.Option(help="Where the passes over the scores run [default: cpu].")
    ] = None,
    sensitivity: Annotated[
        bool, typer.Option("--sensitivity", help="Also show how the labels depend on eps and bounds.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Re-distribute the labels under what is known of the class counts."""
    from fasttrain.base.config import load_settings
    from fasttrain.base.console import say
    from fasttrain.scores import redistribute as room
    from fasttrain.scores.table import ScoreTable

    if sensitivity and method != "sinkhorn":
        raise typer.BadParameter("a sensitivity table belongs to --method sinkhorn", param_hint="--sensitivity")
    values: dict[str, Any] = {
        "method": method,
        "prior": prior,
        "equality": equality or None,
        "lower": lower,
        "upper": upper,
    }
    values |= {"eps": eps, "tolerance": tolerance, "round": round_, "k": k, "device": device}
    given = {key: value for key, value in values.items() if value is not None}  # what is left out has its default
    settings = load_settings(room.RedistributeSettings, given, "redistribute")
    source = ScoreTable.read(table)
    result, report = room.redistribute(source, settings)
    result.write(out)
    if report["converged"] is False:
        say(
            f"warning: not converged after {report['iterations']} iterations (marginal error "
            f"{report['marginal_error']:.2g}, wanted {settings.tolerance:.2g}); raise --eps or widen the bounds"
        )
    if sensitivity:
        report["sensitivity"] = room.sensitivity(source, settings)
        _print_sensitivity(report["sensitivity"])
    finish(report, json, hide=("sensitivity",))


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
    zip_: Annotated[bool, typer.Option("--zip", help="Zip it, with .zip added to the name if need be.")] = False,
    json: JsonOption = False,
) -> None:
    """Write a submission."""
    from fasttrain.scores.submit import write_submission
    from fasttrain.scores.table import ScoreTable

    result = write_submission(
        ScoreTable.read(table), out, file_format=format_, use=use, label_as=label_as, header=header, zipped=zip_
    )
    finish(result, json)


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise typer.BadParameter(f"{text!r} is neither uniform, accuracy nor numbers", param_hint="--weights") from None


def _print_sensitivity(rows: list[dict]) -> None:
    from fasttrain.base.console import print_table

    columns = ["eps", "× prior", "agreement", "changed", "smallest", "largest", "converged"]
    body = [
        [
            f"{row['eps']:g}",
            f"{row['lower']:g}–{row['upper']:g}",
            f"{row['agreement']:.4f}",
            str(row["changed"]),
            str(row["count_min"]),
            str(row["count_max"]),
            "yes" if row["converged"] else "no",
        ]
        for row in rows
    ]
    print_table("Labels under other settings (true labels are not looked at)", columns, body)
