"""The command ``redistribute``."""

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from fasttrain.cli.counts import label_counts
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
        typer.Option(
            help="Share of each class: uniform; a CSV file of class and count; a .beton file, whose labels are "
            "counted; train, the counts that the table holds of its model's training data; or estimate, from the "
            "scores [default: uniform]."
        ),
    ] = None,
    estimator: Annotated[
        Literal["mlls", "bbse"] | None,
        typer.Option(help="Of --prior estimate: maximum likelihood, or from the confusion matrix [default: mlls]."),
    ] = None,
    calibrate: Annotated[
        Path | None,
        typer.Option(help="For --prior estimate: score table of other samples with labels, by the same model."),
    ] = None,
    uncalibrated: Annotated[
        bool, typer.Option("--uncalibrated", help="Let --prior estimate do without one, at the risk of a collapse.")
    ] = False,
    smoothing: Annotated[
        float | None, typer.Option(help="Samples of each class that an estimate adds [default: 1].")
    ] = None,
    equality: Annotated[bool, typer.Option("--equality", help="Counts exactly as the prior says.")] = False,
    relax: Annotated[
        float | None,
        typer.Option(help="Counts as the prior says are wished for, with this strength (rho × KL, in nats)."),
    ] = None,
    lower: Annotated[
        str | None,
        typer.Option(
            help="Least count of a class: a factor of prior × N, or a count; 0 leaves the upper bound alone "
            "[default: 0.9x]."
        ),
    ] = None,
    upper: Annotated[str | None, typer.Option(help="Largest count of a class, likewise [default: 1.1x].")] = None,
    max_shift: Annotated[
        float | None,
        typer.Option(
            help="What a class's scores may change by, in nats; inf for no limit [default: 2.3 under --prior estimate, "
            "no limit otherwise]."
        ),
    ] = None,
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
    """Re-distribute the labels under what is known of the class counts.

    Under torchrun each process reads its share of the rows.
    """
    from fasttrain.base.config import load_settings
    from fasttrain.base.process import check_launch, is_main, rank, world_size
    from fasttrain.scores.redistribution import redistribute as room
    from fasttrain.scores.table import ScoreTable

    if sensitivity and method != "sinkhorn":
        raise typer.BadParameter("a sensitivity table belongs to --method sinkhorn", param_hint="--sensitivity")
    values: dict[str, Any] = {
        "method": method,
        "prior": prior,
        "estimator": estimator,
        "calibrate": calibrate,
        "uncalibrated": uncalibrated or None,
        "smoothing": smoothing,
        "equality": equality or None,
        "relax": relax,
        "lower": lower,
        "upper": upper,
        "max_shift": max_shift,
    }
    values |= {"eps": eps, "tolerance": tolerance, "round": round_, "k": k, "device": device}
    given = {key: value for key, value in values.items() if value is not None}  # what is left out has its default
    settings = load_settings(room.RedistributeSettings, given, "redistribute")
    check_launch()
    with _group(settings.device) if world_size() > 1 else nullcontext():
        source = ScoreTable.read(table, part=(rank(), world_size()))
        counts = label_counts(Path(settings.prior))
        _require_agreement(source, settings)
        result, report = room.redistribute(source, settings, counts=counts)
        if is_main():
            result.write(out)
        if sensitivity:
            report["sensitivity"] = room.sensitivity(source, settings, counts=counts)
    _warn(report, settings)
    if sensitivity:
        _print_sensitivity(report["sensitivity"])
    finish(report, json, hide=("sensitivity",))


def _group(device: str) -> Any:
    from fasttrain.base.distributed import process_group

    return process_group(device)


def _require_agreement(source: Any, settings: Any) -> None:
    from fasttrain.base.distributed import require_agreement
    from fasttrain.base.process import world_size

    if world_size() > 1:
        shape = (source.scores.shape, str(source.scores.dtype), source.classes, source.ids[0], source.ids[-1])
        require_agreement({"score table": shape, "command line": settings.model_dump_json()})


def _warn(report: dict[str, Any], settings: Any) -> None:
    from fasttrain.base.console import say

    if report["converged"] is False:
        say(
            f"warning: not converged after {report['iterations']} iterations (marginal error "
            f"{report['marginal_error']:.2g}, wanted {settings.tolerance:.2g}); raise --eps or widen the bounds"
        )
    if report.get("capped"):
        say(
            f"note: {report['capped']} classes are at the largest change that their scores may have, so that the "
            f"counts miss the bounds by {report['marginal_error']:.2g} of the samples (--max-shift)"
        )


def _print_sensitivity(rows: list[dict[str, Any]]) -> None:
    from fasttrain.base.console import print_table

    relaxed = "relax" in rows[0]
    columns = ["eps", "relax" if relaxed else "× prior", "agreement", "changed", "smallest", "largest", "converged"]
    body = [
        [
            f"{row['eps']:g}",
            f"{row['relax']:g}" if relaxed else f"{row['lower']:g}–{row['upper']:g}",
            f"{row['agreement']:.4f}",
            str(row["changed"]),
            str(row["count_min"]),
            str(row["count_max"]),
            "yes" if row["converged"] else "no",
        ]
        for row in rows
    ]
    print_table("Labels under other settings (true labels are not looked at)", columns, body)
