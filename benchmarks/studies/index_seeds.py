"""Whether decoding by the random-access index changes what a training gives: PACS to sketch, seed by seed.

The same recipe as ``pacs_sketch.py`` (photo + art_painting + cartoon, tested on sketch after the last epoch, so nothing
is chosen on it), trained and evaluated with the index and without (``--no-index``: libjpeg decodes). The pixels differ
by rounding, so that two runs of a seed part as two seeds do; what counts is the mean over the seeds.

    python benchmarks/studies/index_seeds.py PACS_FOLDER WEIGHTS.pth --seeds 0 1 2

Resumable: results are kept per seed in ``benchmarks/results/index_seeds.json``; what is there is not run again.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from pacs_sketch import MODEL, SETTINGS, make_tree

from fasttrain.tools.bench.measure import machine_facts

RESULTS = Path(__file__).resolve().parents[1] / "results" / "index_seeds.json"
WAYS = {"index": "--index", "libjpeg": "--no-index"}


def fasttrain(*arguments: str) -> dict[str, Any]:
    """The result of a command."""
    command = [sys.executable, "-m", "fasttrain.cli.app", *arguments, "--json"]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def top1(folder: Path, weights: Path, seed: int, way: str) -> float:
    """Train and evaluate; both read the files in `folder` in the same way."""
    run = folder / f"{way}{seed}"
    options = [f"--{key.replace('_', '-')}={value}" for key, value in SETTINGS.items()]
    fasttrain(
        *("train", "--data", str(folder / "train.beton"), "--model", MODEL, "--out", str(run), "--seed", str(seed)),
        *("--weights", str(weights), "--weights-match", "order", WAYS[way], *options),
    )
    return fasttrain("evaluate", str(run), str(folder / "test.beton"), WAYS[way])["top1"]


def main() -> None:
    """Run what is not in the results yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pacs", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"settings": SETTINGS, "runs": {}}
    if results["settings"] != SETTINGS:
        sys.exit(f"{RESULTS} was measured with other settings: {results['settings']}; move it away")
    results["machine"] = machine_facts()
    with tempfile.TemporaryDirectory(prefix="index_seeds_") as scratch:
        folder = Path(scratch)
        for name, source in zip(("train", "test"), make_tree(arguments.pacs, folder), strict=True):
            fasttrain("build", str(source), str(folder / f"{name}.beton"))
        for seed in arguments.seeds:
            for way in WAYS:
                run = results["runs"].setdefault(str(seed), {})
                if way not in run:
                    run[way] = top1(folder, arguments.weights, seed, way)
                    RESULTS.write_text(json.dumps(results, indent=2) + "\n")
            print(seed, results["runs"][str(seed)], flush=True)
    for way in WAYS:
        values = [run[way] for run in results["runs"].values() if way in run]
        print(f"{way:8} mean top-1 {statistics.mean(values):.4f}  min {min(values):.4f}  max {max(values):.4f}")


if __name__ == "__main__":
    main()
