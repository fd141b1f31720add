"""The command ``ensemble``."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from fasttrain.cli.output import JsonOption, finish


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("ensemble")(ensemble)


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


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise typer.BadParameter(f"{text!r} is neither uniform, accuracy nor numbers", param_hint="--weights") from None
