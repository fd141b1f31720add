"""Loading beside the peers: `fasttrain bench loader`, its figures kept in ``benchmarks/results/``, each with a plot.

python benchmarks/loader.py PHOTOS [--rounds 5] [--only SET] [--contestant NAME] [--limit N] [--batch-size 256]
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from fasttrain.tools.bench.loader import LoaderBench, bench_loader

RESULTS = Path(__file__).parent / "results"
SETS = {
    "train": LoaderBench(works=("train",)),
    "train_float16": LoaderBench(works=("train",), dtype="float16"),
    "train_scale25": LoaderBench(works=("train",), scale=(0.25, 1.0)),
    "train_128": LoaderBench(works=("train",), size=128),
    "eval": LoaderBench(works=("eval",)),
    "raw": LoaderBench(works=("raw",)),
}


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
        result = bench_loader(given.photos, settings)
        path = given.results / f"loader_{name}.json"
        path.write_text(json.dumps(result, indent=2) + "\n")
        plot(result, path.with_suffix(".svg"))
        for entry in result["ratios"]:
            if entry["fastest_peer"]:
                spread = f"{entry['min']} to {entry['max']}"
                print(f"{name}: {entry['ours']} / {entry['theirs']}: {entry['ratio']} ({spread})", flush=True)


def plot(result: dict[str, Any], path: Path) -> None:
    """A bar of the median for each contestant, fastest on top, with whiskers from the slowest to the fastest round."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "fasttrain"  # the same figures give the same file
    from matplotlib import pyplot

    entries = sorted((entry for entry in result["results"] if "error" not in entry), key=lambda entry: entry["median"])
    if not entries:
        return
    peers = {entry["theirs"] for entry in result["ratios"]}
    others = peers | {entry["name"] for entry in entries if entry["source"] == "jpeg-ffcv"}
    medians = [entry["median"] for entry in entries]
    below = [entry["median"] - entry["min"] for entry in entries]
    above = [entry["max"] - entry["median"] for entry in entries]
    colours = ["#9aa5b1" if entry["name"] in others else "#1f6feb" for entry in entries]
    names = [entry["name"] if entry["name"] in others else f"fasttrain {entry['name']}" for entry in entries]
    figure, axes = pyplot.subplots(figsize=(7, 0.9 + 0.35 * len(entries)), layout="constrained")
    axes.barh(names, medians, xerr=[below, above], color=colours, capsize=3)
    for position, entry in enumerate(entries):
        axes.annotate(
            f"{entry['median']:,.0f}", (entry["max"], position), (4, 0), textcoords="offset points", va="center"
        )
    axes.margins(x=0.12)
    axes.set_xlim(left=0)
    axes.set_xlabel(
        f"images/s: {entries[0]['work']}, {entries[0]['dtype']}, {result['size']} px, {entries[0]['threads']} workers, "
        f"{result['machine']['processor']}"
    )
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


if __name__ == "__main__":
    main()
