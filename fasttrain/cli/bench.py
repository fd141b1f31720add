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


def _report(result: dict[str, Any], out: Path | None, as_json: bool) -> None:
    import json

    from fasttrain.base.atomic import atomic_open
    from fasttrain.base.console import print_table, say

    if out is not None:
        with atomic_open(out) as file:
            file.write(json.dumps(result, indent=2) + "\n")
    rows = []
    for entry in result["results"]:
        figures = (
            [entry["error"], "", ""] if "error" in entry else [f"{entry[key]:,.0f}" for key in ("median", "min", "max")]
        )
        rows.append([entry["name"], *figures])
    print_table(f"{result['images']} images, {result['results'][0]['unit']}", ["name", "median", "min", "max"], rows)
    for missing in result["missing"]:
        say(f"{missing} is not installed, so it takes no part")
    if as_json:
        finish(result, True)
        return
    for entry in result["ratios"]:
        spread = f"rounds {entry['min']:.2f} to {entry['max']:.2f}"
        print(f"{entry['ours']} / {entry['theirs']}: {entry['ratio']:.2f} ({spread})")
