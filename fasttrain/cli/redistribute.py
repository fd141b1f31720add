"""The command ``redistribute``."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from fasttrain.cli.output import JsonOption, finish


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("redistribute")(redistribute)


def redistribute(
    table: Annotated[Path, typer.Argument(help="A score table (.arrow).")],
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
