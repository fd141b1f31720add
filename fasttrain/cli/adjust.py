"""The command ``scores adjust``."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from fasttrain.cli.counts import label_counts
from fasttrain.cli.output import JsonOption, finish


def adjust(
    table: Annotated[Path, typer.Argument(help="A score table (.arrow).")],
    out: Annotated[Path, typer.Option(help="The score table to write (.arrow).")],
    temperature: Annotated[float | None, typer.Option(help="Divide logits (log-probabilities) by it.")] = None,
    fit_temperature: Annotated[
        Path | None, typer.Option(help="Fit it on this labelled table of the same model, of other samples.")
    ] = None,
    train_counts: Annotated[
        Path | None,
        typer.Option(help="Logit adjustment by these class counts: a CSV file of class and count, or a .beton file."),
    ] = None,
    tau: Annotated[float | None, typer.Option(help="Strength of the logit adjustment [default: 1].")] = None,
    rules: Annotated[
        str | None, typer.Option(help="Rules on pairs of classes: a YAML file, or ood_cv; they write assigned labels.")
    ] = None,
    dtype: Annotated[
        Literal["float32", "float16"] | None, typer.Option(help="Of the scores that are written [default: float32].")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Adjust scores: temperature, then logit adjustment, then rules on pairs of classes."""
    from fasttrain.base.config import load_settings
    from fasttrain.scores.posthoc.adjust import AdjustSettings, adjust_file

    values = {
        "temperature": temperature,
        "fit_temperature": fit_temperature,
        "train_counts": train_counts,
        "tau": tau,
        "rules": rules,
        "dtype": dtype,
    }
    given = {key: value for key, value in values.items() if value is not None}  # what is left out has its default
    settings = load_settings(AdjustSettings, given, "scores adjust")
    report = adjust_file(table, out, settings, None if train_counts is None else label_counts(train_counts))
    finish({**report, "out": str(out)}, json, hide=("rules",))
    if not json and "rules" in report:
        for number, rule in enumerate(report["rules"]):
            print(f"rule {number + 1}: {rule['predicted']} to {rule['becomes']}: {rule['changed']}")
