"""`bench`: throughput, side by side with the peers that are installed."""

from pathlib import Path
from typing import Annotated, Any

import typer

from fasttrain.cli.output import JsonOption, finish

bench = typer.Typer(help="Throughput, side by side with the peers that are installed.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.add_typer(bench, name="bench")


@bench.command("build")
def build(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="Image files: a folder or a list, as for `build`.")],
    rounds: Annotated[int, typer.Option(min=1, help="How often each contestant runs.")] = 5,
    workers: Annotated[int | None, typer.Option(min=1, help="Of each contestant [default: the cores at hand].")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only so many of the images.")] = None,
    repeat: Annotated[int, typer.Option(min=1, help="List every image so often, for longer runs.")] = 1,
    quality: Annotated[int, typer.Option(min=1, max=100, help="Of JPEG re-encoding.")] = 90,
    only: Annotated[list[str] | None, typer.Option(help="A contestant's name; may be given again.")] = None,
    scratch: Annotated[Path | None, typer.Option(help="Folder for the output [default: the system's].")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the figures to this JSON file as well.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Convert a folder with this package and with FFCV's writer, in turns, and compare images/s."""
    from fasttrain.tools.bench.conversion import bench_conversion

    result = bench_conversion(
        source,
        rounds=rounds,
        workers=workers,
        limit=limit,
        repeat=repeat,
        quality=quality,
        only=only or (),
        scratch=scratch,
    )
    _report(result, out, as_json)


@bench.command("loader")
def loader(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="Images: a folder, list, archive or .beton file.")],
    work: Annotated[
        list[str] | None,
        typer.Option(
            help="train (random crop, flip), eval (short side, centre) or raw (as train, from stored pixels)."
        ),
    ] = None,
    size: Annotated[int, typer.Option(min=1, help="Side of the images given out.")] = 224,
    scale: Annotated[str, typer.Option(help="Smallest and largest share of the area of a random crop.")] = "0.08,1",
    batch_size: Annotated[int, typer.Option(min=1)] = 256,
    workers: Annotated[int | None, typer.Option(min=1, help="Of each contestant [default: the cores at hand].")] = None,
    threads_curve: Annotated[bool, typer.Option(help="Measure with 1, 2, 4, … workers up to --workers.")] = False,
    rounds: Annotated[int, typer.Option(min=1, help="How often each contestant runs.")] = 5,
    limit: Annotated[int | None, typer.Option(min=1, help="Only so many images [default: what one run shows].")] = None,
    repeat: Annotated[
        int | None, typer.Option(min=1, help="Passes over the images a run [default: for 20 batches or more].")
    ] = None,
    cold: Annotated[
        bool, typer.Option(help="From files that are not in the page cache, of which none is read twice a run.")
    ] = False,
    only: Annotated[list[str] | None, typer.Option(help="A contestant's name; may be given again.")] = None,
    dtype: Annotated[str, typer.Option(help="float32 or float16.")] = "float32",
    backend: Annotated[
        list[str] | None, typer.Option(help="A backend of this package's Loader [default: all].")
    ] = None,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds after which a contestant is stopped.")] = 300.0,
    scratch: Annotated[Path | None, typer.Option(help="For the prepared images [default: the system's].")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the figures to this JSON file as well.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Load images with this package and with the peers that are installed, in turns, and compare images/s."""
    from fasttrain.base.process import available_cores
    from fasttrain.tools.bench.loader import LoaderBench, bench_loader, curve_of

    most = workers or available_cores()
    settings = LoaderBench(
        works=work or ("train",),
        size=size,
        scale=_scale(scale),
        dtype=dtype,
        batch_size=batch_size,
        threads=curve_of(most) if threads_curve else (most,),
        rounds=rounds,
        limit=limit,
        repeat=repeat,
        cold=cold,
        only=only or (),
        backends=backend or (),
        timeout_s=timeout,
        scratch=scratch,
    )
    _report(bench_loader(data, settings), out, as_json)


@bench.command("scores")
def scores(
    rows: Annotated[int, typer.Option(min=1, help="Samples of the generated float16 table.")] = 90_000,
    columns: Annotated[int, typer.Option(min=2, help="Classes.")] = 5_000,
    eps: Annotated[float, typer.Option(min=1e-3, help="Temperature of passes and solvers.")] = 0.2,
    tables: Annotated[int, typer.Option(min=1, help="Of the ensemble, each with a tenth of the rows.")] = 17,
    peer_rows: Annotated[int, typer.Option(min=1, help="Samples of the problem for iterations beside peers.")] = 9_000,
    solve_rows: Annotated[int, typer.Option(min=1, help="Samples of the problem that is solved whole.")] = 2_000,
    tolerance: Annotated[float, typer.Option(min=0, help="L1 marginal error to which it is solved.")] = 1e-3,
    threads: Annotated[int | None, typer.Option(min=1, help="Of each contestant [default: the cores at hand].")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="How often each contestant runs.")] = 5,
    only: Annotated[list[str] | None, typer.Option(help="A contestant's name; may be given again.")] = None,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds after which a contestant is stopped.")] = 600.0,
    scratch: Annotated[Path | None, typer.Option(help="For the generated tables [default: the system's].")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the figures to this JSON file as well.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Passes over a score matrix, beside reading its bytes and beside the exponentials; ensembles; peers' Sinkhorn."""
    from fasttrain.tools.bench.scores import ScoresBench, bench_scores

    settings = ScoresBench(
        rows=rows,
        columns=columns,
        eps=eps,
        tables=tables,
        peer_rows=peer_rows,
        solve_rows=solve_rows,
        tolerance=tolerance,
        threads=threads,
        rounds=rounds,
        only=only or (),
        timeout_s=timeout,
        scratch=scratch,
    )
    result = bench_scores(settings)
    title = f"{rows:,} x {columns:,} float16 scores; work a second"
    _report(result, out, as_json, title)


@bench.command("train")
def train(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="Images with classes: folder, list, archive, .beton.")],
    val: Annotated[Path | None, typer.Option(help="Images to validate on after each epoch.")] = None,
    model: Annotated[str, typer.Option(help="timm's name.")] = "resnet18",
    weights: Annotated[Path | None, typer.Option(help="File that all start from [default: random weights].")] = None,
    weights_match: Annotated[str, typer.Option(help="Join its tensors by name or by order.")] = "name",
    size: Annotated[int, typer.Option(min=1, help="Side of the images.")] = 128,
    scale: Annotated[str, typer.Option(help="Smallest and largest share of the area of a random crop.")] = "0.08,1",
    batch_size: Annotated[int, typer.Option(min=1)] = 64,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the images.")] = 1,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Instead: about so many steps, with fewer images or in more epochs.")
    ] = None,
    optimizer: Annotated[str, typer.Option(help="sgd (Nesterov momentum 0.9) or adamw.")] = "sgd",
    lr: Annotated[float | None, typer.Option(min=0, help="At the peak [default: as `fasttrain train`].")] = None,
    weight_decay: Annotated[float | None, typer.Option(min=0, help="[default: as `fasttrain train`].")] = None,
    warmup_epochs: Annotated[float, typer.Option(min=0, help="Of the learning rate, at most half of the run.")] = 1.0,
    amp: Annotated[str, typer.Option(help="off or bf16.")] = "off",
    channels_last: Annotated[bool, typer.Option(help="Memory format of model and images.")] = True,
    device: Annotated[str | None, typer.Option(help="cpu or cuda [default: a GPU if there is one].")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Of each contestant [default: the cores at hand].")] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    rounds: Annotated[int, typer.Option(min=1, help="How often each contestant runs.")] = 3,
    uncounted: Annotated[int, typer.Option(min=0, help="First steps, which images/s leaves out.")] = 8,
    limit: Annotated[int | None, typer.Option(min=1, help="Only so many training images.")] = None,
    target: Annotated[
        float | None, typer.Option(min=0, max=1, help="Top-1 on --val, 0 to 1, whose seconds of training are told.")
    ] = None,
    only: Annotated[list[str] | None, typer.Option(help="A contestant's name; may be given again.")] = None,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds after which a contestant is stopped.")] = 3600.0,
    scratch: Annotated[Path | None, typer.Option(help="For the prepared images [default: the system's].")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the figures to this JSON file as well.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Train with this package, timm's loop, torchvision's reference and Lightning, in turns, and compare images/s."""
    from fasttrain.base.console import say
    from fasttrain.tools.bench.train import TrainBench, bench_train

    settings = TrainBench(
        val=val,
        model=model,
        weights=weights,
        weights_match=_match(weights_match),
        size=size,
        scale=_scale(scale),
        batch_size=batch_size,
        epochs=epochs,
        steps=steps,
        optimizer=optimizer,
        lr=lr,
        weight_decay=weight_decay,
        warmup_epochs=warmup_epochs,
        amp=amp,
        channels_last=channels_last,
        device=device,
        workers=workers,
        seed=seed,
        rounds=rounds,
        uncounted=uncounted,
        limit=limit,
        target=target,
        only=only or (),
        timeout_s=timeout,
        scratch=scratch,
    )
    result = bench_train(data, settings)
    _report(result, out, as_json)
    for name, own in result["own_settings"].items():
        say(f"{name}: {own}")


def _match(text: str) -> Any:
    from fasttrain.base.errors import ConfigError

    if text not in ("name", "order"):
        raise ConfigError(f"--weights-match is name or order, not {text!r}")
    return text


def _scale(text: str) -> tuple[float, float]:
    from fasttrain.base.errors import ConfigError

    try:
        least, most = (float(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"--scale is two numbers with a comma between them, as 0.08,1, not {text!r}") from None
    return least, most


# Further columns of the table: key of a result, heading, factor, decimals.
_COLUMNS = (
    ("first_batch_s", "first batch, s", 1.0, 2),
    ("peak_bytes", "peak, MB", 1e-6, 0),
    ("psnr_mean", "PSNR, dB", 1.0, 1),
    ("peak_gpu_bytes", "GPU, MB", 1e-6, 0),
    ("target_s", "target, s", 1.0, 1),
    ("loss", "loss", 1.0, 2),
    ("top1", "top-1", 1.0, 3),
    ("iterations", "iterations", 1.0, 0),
    ("peak_and_table", "memory / table", 1.0, 2),
)
_LABELS = ("work", "source", "threads")


def _report(result: dict[str, Any], out: Path | None, as_json: bool, title: str | None = None) -> None:
    import json

    from fasttrain.base.atomic import atomic_open
    from fasttrain.base.console import print_table, say

    if out is not None:
        with atomic_open(out) as file:
            file.write(json.dumps(result, indent=2) + "\n")
    results = result["results"]
    cold = " from cold files" if results[0].get("cache") == "cold" else ""
    title = title or f"{result['images']} images, {result['mean_bytes']:,} bytes each{cold}; {results[0]['unit']}"
    print_table(title, *_table(results))
    for missing in result["missing"]:
        say(f"takes no part: {missing}")
    if as_json:
        finish(result, True)
        return
    for entry in result["ratios"]:
        where = "".join(f", {entry[key]}" for key in ("work", "source") if key in entry)
        threads = f", {entry['threads']} threads" if "threads" in entry else ""
        fastest = " (the fastest peer)" if entry.get("fastest_peer") else ""
        spread = f"rounds {entry['min']:.2f} to {entry['max']:.2f}"
        further = f", {entry['to_target']:.2f} times as fast to the target" if "to_target" in entry else ""
        further += f", top-1 {entry['top1_difference']:+.4f}" if "top1_difference" in entry else ""
        print(f"{entry['ours']} / {entry['theirs']}{fastest}{where}{threads}: {entry['ratio']:.2f} ({spread}){further}")


def _figure(value: float) -> str:
    return f"{value:,.{0 if value >= 100 else 1 if value >= 10 else 3}f}"


def _table(results: list[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Headings and rows: labels only where they differ, figures only where somebody has them."""
    shared = [key for key in _LABELS if all(key in entry for entry in results)]
    labels = [key for key in shared if len({entry[key] for entry in results}) > 1]
    further = [column for column in _COLUMNS if any(entry.get(column[0]) is not None for entry in results)]
    rows = []
    for entry in results:
        row = [entry["name"], *(str(entry[key]) for key in labels)]
        if "error" in entry:
            rows.append([*row, entry["error"], *[""] * (2 + len(further))])
            continue
        row += [_figure(entry[key]) for key in ("median", "min", "max")]
        for key, _, factor, decimals in further:
            row.append("" if entry.get(key) is None else f"{entry[key] * factor:,.{decimals}f}")
        rows.append(row)
    return ["name", *labels, "median", "min", "max", *(heading for _, heading, _, _ in further)], rows
