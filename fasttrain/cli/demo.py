"""`demo`: the whole journey on sample images."""

from pathlib import Path
from typing import Annotated

import typer

from fasttrain.cli.output import JsonOption, finish


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("demo")(demo)


def demo(
    out: Annotated[
        Path, typer.Option(help="Folder for everything; an earlier demo in it is replaced, anything else left alone.")
    ] = Path("demo_out"),
    seed: Annotated[int, typer.Option(min=0, help="Of images, split and training.")] = 0,
    device: Annotated[str | None, typer.Option(help="cpu, cuda or cuda:N (default: the best there is).")] = None,
    json: JsonOption = False,
) -> None:
    """Images to submission in two minutes: build, train, predict, ensemble, redistribute, pseudo, submit, report."""
    from fasttrain.base.console import print_table, say
    from fasttrain.tools.demo import run_demo
    from fasttrain.tools.demo_result import DemoSettings, summary

    result = run_demo(DemoSettings(out=out, seed=seed, device=device))
    say("")
    rows = [[name, remark, f"{accuracy:.4f}"] for name, accuracy, remark in result.accuracies]
    print_table("Accuracy on the test part", ["", "class counts used", "accuracy"], rows)
    say(result.sample.settings.describe_shift())
    figures = summary(result)
    hidden = () if json else ("samples", "shift", "top1", "pseudo")
    finish(figures, json, hide=hidden)
