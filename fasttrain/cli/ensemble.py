"""The command ``ensemble``."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperCommand

from fasttrain.cli.output import JsonOption, finish

VALIDATION = "--validation"


class _ManyValues(TyperCommand):
    """Takes all words after ``--validation``, up to the next option, for its values."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        spelled: list[str] = []
        inside = False
        for word in args:
            if word.startswith("-"):
                inside = word == VALIDATION
            elif inside and spelled[-1] != VALIDATION:
                spelled.append(VALIDATION)
            spelled.append(word)
        return super().parse_args(ctx, spelled)


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("ensemble", cls=_ManyValues)(ensemble)


def ensemble(
    tables: Annotated[list[Path], typer.Argument(help="Score tables of the same samples and classes.")],
    out: Annotated[Path, typer.Option(help="The score table to write (.arrow).")],
    method: Annotated[
        Literal["average", "rank", "vote"] | None,
        typer.Option(help="Average of scores, of ranks, or one vote a table [default: average]."),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            help="uniform, one number a table (0.35,0.30,0.35), accuracy (stored validation top-1), fit or greedy (on "
            "--validation), agreement (of votes with the majority) [default: uniform; of votes agreement]."
        ),
    ] = None,
    space: Annotated[
        Literal["logits", "probs", "log_probs"] | None, typer.Option(help="What is averaged [default: probs].")
    ] = None,
    factor: Annotated[float | None, typer.Option(help="Exponent of --weights accuracy [default: 1].")] = None,
    validation: Annotated[
        list[Path] | None,
        typer.Option(VALIDATION, help="Labelled tables of other samples, one a model in the order of the tables."),
    ] = None,
    temperatures: Annotated[
        str | None, typer.Option(help="One number a table, or fit (on --validation) [default: 1 each].")
    ] = None,
    objective: Annotated[
        Literal["nll", "accuracy"] | None, typer.Option(help="Of --weights greedy [default: nll].")
    ] = None,
    bags: Annotated[
        int | None, typer.Option(help="Of --weights greedy: selections, each from a random half of the models.")
    ] = None,
    dtype: Annotated[
        Literal["float32", "float16"] | None, typer.Option(help="Of the scores that are written [default: float32].")
    ] = None,
    device: Annotated[
        Literal["cpu", "cuda"] | None, typer.Option(help="Where scores are combined [default: cpu].")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Combine the scores of several models."""
    from fasttrain.base.config import load_settings
    from fasttrain.scores.ensembles.ensemble import NAMED_WEIGHTS, EnsembleSettings, ensemble_files

    if factor is not None and weights != "accuracy":
        raise typer.BadParameter("an exponent belongs to --weights accuracy", param_hint="--factor")
    values = {
        "method": method,
        "weights": weights if weights in NAMED_WEIGHTS else _numbers(weights, "--weights"),
        "space": space,
        "factor": factor,
        "temperatures": temperatures if temperatures == "fit" else _numbers(temperatures, "--temperatures"),
        "objective": objective,
        "bags": bags,
        "dtype": dtype,
        "device": device,
    }
    given = {key: value for key, value in values.items() if value is not None}  # what is left out has its default
    settings = load_settings(EnsembleSettings, given, "ensemble")
    finish(ensemble_files(tables, out, settings, validation=validation or ()), json, hide=("fit",))


def _numbers(text: str | None, option: str) -> list[float] | None:
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise typer.BadParameter(f"{text!r} is neither a known name nor numbers", param_hint=option) from None
