"""Loading beside the peers: `fasttrain bench loader`, its figures kept in ``benchmarks/results/``, each with a plot.

python benchmarks/loader.py PHOTOS [--rounds 5] [--only SET] [--contestant NAME] [--limit N] [--batch-size 256]
"""

import argparse
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import Any

from fasttrain.base.errors import FasttrainError
from fasttrain.base.process import available_cores
from fasttrain.beton_build.build import build
from fasttrain.beton_build.options import BuildOptions
from fasttrain.beton_build.sources import read_source
from fasttrain.loading.backend import BACKENDS
from fasttrain.tools.bench.loader import LoaderBench, bench_loader, curve_of
from fasttrain.tools.bench.loader_job import OUR_LIBJPEG

RESULTS = Path(__file__).parent / "results"
SETS = {
    "train": LoaderBench(works=("train",)),
    "train_float16": LoaderBench(works=("train",), dtype="float16"),
    "train_scale25": LoaderBench(works=("train",), scale=(0.25, 1.0)),
    "train_128": LoaderBench(works=("train",), size=128),
    "train_384": LoaderBench(works=("train",), size=384),
    "train_500px": LoaderBench(works=("train",)),
    "eval": LoaderBench(works=("eval",)),
    "raw": LoaderBench(works=("raw",)),
    "train_cold": LoaderBench(works=("train",), cold=True),
    "train_threads": LoaderBench(works=("train",), threads=curve_of(available_cores())),
}
# A set whose photos are brought into another form first: at most 500 pixels wide and high, as data sets often are.
FORMS = {"train_500px": BuildOptions(mode="jpg", max_resolution=500, quality=90)}
PEERS_OF_A_CURVE = 3  # the fastest of the set `train`
OUR_COLOUR, PEER_COLOURS = "#1f6feb", ("#9aa5b1", "#b3742f", "#4f8a5b", "#8a5fa8", "#5c6670")


def main() -> None:
    """Measure each set, write figures and plot, and print the ratios to the fastest peer."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", action="append", choices=list(SETS), help="a set; may be given again")
    parser.add_argument("--contestant", action="append", default=[], help="only this one; may be given again")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    for name in given.only or SETS:
        chosen = {
            "rounds": given.rounds,
            "limit": given.limit,
            "batch_size": given.batch_size,
            "only": given.contestant,
        }
        settings = replace(SETS[name], **chosen)
        if settings.threads and not settings.only:
            settings = replace(settings, only=fastest(given.results / "loader_train.json"))
        try:
            with source_of(name, given.photos) as source:
                result = bench_loader(source, settings)
        except FasttrainError as error:
            raise SystemExit(f"error: {error}") from None
        path = given.results / f"loader_{name}.json"
        path.write_text(json.dumps(result, indent=2) + "\n")
        draw = plot_curve if settings.threads else plot_bars
        draw(result, path.with_suffix(".svg"))
        for entry in result["ratios"]:
            if entry["fastest_peer"]:
                spread = f"{entry['min']} to {entry['max']}"
                workers = f", {entry['threads']} workers" if settings.threads else ""
                print(f"{name}{workers}: {entry['ours']} / {entry['theirs']}: {entry['ratio']} ({spread})", flush=True)


@contextmanager
def source_of(name: str, photos: Path) -> Iterator[Path]:
    """What a set is measured on: the photos, or a `.beton` of them in another form."""
    if name not in FORMS:
        yield photos
        return
    with tempfile.TemporaryDirectory(prefix="fasttrain_bench_") as folder:
        path = Path(folder) / "photos.beton"
        build(read_source(photos), path, FORMS[name])
        yield path


def fastest(train: Path) -> list[str]:
    """Our native backend and the fastest peers, by the figures of the set `train`."""
    if not train.exists():
        raise SystemExit(f"error: {train} tells which peers are the fastest; measure it first: --only train")
    ratios = json.loads(train.read_text())["ratios"]  # fastest peer first
    return ["native", *[entry["theirs"] for entry in ratios if entry["ours"] == "native"][:PEERS_OF_A_CURVE]]


# --- plots ------------------------------------------------------------------------------------------------------------


def plot_bars(result: dict[str, Any], path: Path) -> None:
    """A bar of the median for each contestant, fastest on top, with whiskers from the slowest to the fastest round."""
    entries = sorted((entry for entry in result["results"] if "error" not in entry), key=lambda entry: entry["median"])
    if not entries:
        return
    medians = [entry["median"] for entry in entries]
    below = [entry["median"] - entry["min"] for entry in entries]
    above = [entry["max"] - entry["median"] for entry in entries]
    names = [shown_name(entry["name"]) for entry in entries]
    colours = [OUR_COLOUR if is_ours(entry["name"]) else PEER_COLOURS[0] for entry in entries]
    with figure_of(path, 0.9 + 0.35 * len(entries)) as axes:
        axes.barh(names, medians, xerr=[below, above], color=colours, capsize=3)
        for position, entry in enumerate(entries):
            axes.annotate(
                f"{entry['median']:,.0f}", (entry["max"], position), (4, 0), textcoords="offset points", va="center"
            )
        axes.margins(x=0.12)
        axes.set_xlim(left=0)
        axes.set_xlabel(f"images/s: {work_of(result)}, {entries[0]['threads']} workers, {processor_of(result)}")


def plot_curve(result: dict[str, Any], path: Path) -> None:
    """Workers to images/s: of each contestant a line of medians, in a band from the slowest to the fastest round."""
    entries = [entry for entry in result["results"] if "error" not in entry]
    names = list(dict.fromkeys(entry["name"] for entry in entries))
    if not names:
        return
    lines = {name: sorted((e for e in entries if e["name"] == name), key=lambda e: e["threads"]) for name in names}
    ranked = sorted(names, key=lambda name: -lines[name][-1]["median"])
    with figure_of(path, 4) as axes:
        for name, (marker, grey) in zip(ranked, cycle(zip("os^Dv", PEER_COLOURS, strict=True)), strict=False):
            threads, medians, least, most = (
                [entry[key] for entry in lines[name]] for key in ("threads", "median", "min", "max")
            )
            colour = OUR_COLOUR if is_ours(name) else grey
            axes.plot(threads, medians, color=colour, marker=marker, label=shown_name(name))
            axes.fill_between(threads, least, most, color=colour, alpha=0.2, linewidth=0)
        axes.set_xticks(sorted({entry["threads"] for entry in entries}))
        axes.set_ylim(bottom=0)
        axes.set_xlabel(f"workers ({processor_of(result)})")
        axes.set_ylabel(f"images/s: {work_of(result)}")
        axes.legend(frameon=False)


@contextmanager
def figure_of(path: Path, height: float) -> Iterator[Any]:
    """Axes of a figure that is stored as SVG."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "fasttrain"  # the same figures give the same file
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, height), layout="constrained")
    yield axes
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def is_ours(name: str) -> bool:
    """Whether a contestant is this package's Loader."""
    return name in BACKENDS or name == OUR_LIBJPEG


def shown_name(name: str) -> str:
    """How a contestant is called in a plot."""
    return f"fasttrain {name}" if name in BACKENDS else name


def work_of(result: dict[str, Any]) -> str:
    """What was done."""
    entry = result["results"][0]
    return f"{entry['work']}, {entry['dtype']}, {result['size']} px{', cold files' * (entry['cache'] == 'cold')}"


def processor_of(result: dict[str, Any]) -> str:
    """What it ran on."""
    return str(result["machine"]["processor"])


if __name__ == "__main__":
    main()
