"""The command ``corrupt``."""

from pathlib import Path
from typing import Annotated

import typer

from fasttrain.cli.output import JsonOption, finish


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("corrupt")(corrupt)


def corrupt(
    sources: Annotated[
        list[Path], typer.Argument(metavar="SOURCE...", help="Labelled samples: what `build` takes, as it takes it.")
    ],
    out: Annotated[Path, typer.Option(help="The table id,label to write, for build --labels FILE --ids FILE.")],
    truth: Annotated[Path | None, typer.Option(help="Write the true labels of the same samples here.")] = None,
    classes: Annotated[
        Path | None, typer.Option(help="Class names, one a line, or a .beton of the same classes.")
    ] = None,
    imbalance: Annotated[
        float, typer.Option(min=1.0, help="Long tail: samples of the first class over those of the last one.")
    ] = 1.0,
    most: Annotated[
        int | None, typer.Option(min=1, help="Samples of the first class [default: as many as there can be].")
    ] = None,
    noise: Annotated[
        float, typer.Option(min=0.0, max=0.99, help="Share of labels that become another class, each as likely.")
    ] = 0.0,
    seed: Annotated[int, typer.Option(min=0, help="Of what is left and what is wrong.")] = 0,
    json: JsonOption = False,
) -> None:
    """For studies: choose a long-tailed subset, and give a share of it wrong labels."""
    import numpy as np

    from fasttrain.beton_build.corrupt import corrupt as run
    from fasttrain.beton_build.corrupt import write_labels
    from fasttrain.beton_build.sources import read_source

    samples = read_source(sources, classes=classes)
    found = run(samples, imbalance=imbalance, most=most, noise=noise, seed=seed)
    if truth is not None:
        write_labels(truth, samples, found.rows, samples.labels[found.rows])
    write_labels(out, samples, found.rows, found.labels)
    counts = np.bincount(found.labels, minlength=len(samples.class_names))
    result = {
        "samples": len(found.rows),
        "of": len(samples),
        "wrong": int(found.flipped.sum()),
        "per_class": dict(zip(samples.class_names, counts.tolist(), strict=True)),
        "out": str(out),
    }
    finish(result, json, hide=("per_class",))
