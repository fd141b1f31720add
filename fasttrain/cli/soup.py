"""The command ``soup``: the mean of several checkpoints as one."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from fasttrain.cli.models import AmpOption, BatchOption, DeviceOption, ThreadsOption
from fasttrain.cli.output import JsonOption, finish


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("soup")(soup)


def soup(
    out: Annotated[Path, typer.Option(help="The checkpoint to write (.safetensors).")],
    checkpoints: Annotated[
        list[Path] | None, typer.Argument(metavar="CKPT...", help="Checkpoints or runs' folders, of one architecture.")
    ] = None,
    method: Annotated[
        Literal["uniform", "weighted", "greedy", "last-k"] | None,
        typer.Option(
            help="Mean of all; of all by --weights; of those that make it no worse on --val, best first; of the last "
            "epochs of --run [default: uniform; weighted with --weights, last-k with --run]."
        ),
    ] = None,
    weights: Annotated[str | None, typer.Option(help="One number a checkpoint: 0.5,0.3,0.2.")] = None,
    run: Annotated[
        Path | None, typer.Option(help="A run that keeps checkpoints of epochs (train --set keep_last=5).")
    ] = None,
    last: Annotated[int | None, typer.Option(min=1, help="How many of its last epochs.")] = None,
    val: Annotated[
        str | None, typer.Option(help="Data to measure it on; for greedy, to choose it on (and stored as that).")
    ] = None,
    bn_data: Annotated[
        str | None, typer.Option(help="Training images, for batch normalisation's statistics anew (eval view).")
    ] = None,
    bn_batches: Annotated[int | None, typer.Option(min=1, help="How many batches of them [default: all].")] = None,
    batch_size: BatchOption = 64,
    device: DeviceOption = None,
    amp: AmpOption = "auto",
    threads: ThreadsOption = None,
    json: JsonOption = False,
) -> None:
    """Average the weights of several checkpoints of one architecture."""
    from fasttrain.base.console import print_table
    from fasttrain.base.distributed import process_group
    from fasttrain.inference.forward import resolve_amp
    from fasttrain.inference.soup import Tasting, make_soup
    from fasttrain.models.soup import run_checkpoints

    chosen_method = method or ("weighted" if weights else "last-k" if run else "uniform")
    if chosen_method == "last-k":
        if checkpoints or run is None or last is None:
            raise typer.BadParameter("it takes --run RUN --last K, and no checkpoints", param_hint="--method last-k")
    elif run is not None or last is not None or not checkpoints:
        raise typer.BadParameter("name the checkpoints; --run and --last belong to --method last-k", param_hint="CKPT")
    paths = run_checkpoints(run, last) if run is not None and last is not None else checkpoints or []
    with process_group(device) as found:
        tasting = Tasting(val, bn_data, bn_batches, batch_size, found, resolve_amp(amp, found), threads)
        result = make_soup(paths, out, chosen_method, _numbers(weights), tasting)
    if json:
        finish(result, True)
        return
    if "tried" in result:
        print_table(
            "greedy", ["checkpoint", "alone", "in the soup", "kept"], [_row(entry) for entry in result["tried"]]
        )
    kept = result["integers"]
    result["integers"] = f"{len(kept)} kept from the first ({kept[0]}, …)" if kept else []
    finish(result, False, hide=("tried",))


def _numbers(text: str | None) -> list[float] | None:
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise typer.BadParameter(f"{text!r} are not numbers with commas between them", param_hint="--weights") from None


def _row(entry: dict[str, Any]) -> list[str]:
    return [entry["checkpoint"], f"{entry['alone']:.4f}", f"{entry['soup']:.4f}", "yes" if entry["kept"] else "no"]
