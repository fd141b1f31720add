"""CamVid, day to dusk: is an adapted model better at dusk than one that has learned from the day alone?

The recipe `camvid_dusk` for several seeds: source alone, adaptation, three self-trainings on pseudo-labels, their mean.
The labels of `dusk_test` are read by the stages that measure; no setting was chosen by them.

    python benchmarks/studies/dusk.py CAMVID_FOLDER WEIGHTS.pth --work FOLDER --seeds 0 1 2

Resumable: the recipe goes on where it was interrupted, as long as FOLDER is there, and results are kept per seed in
``benchmarks/results/dusk.json``; seeds that are there are not run again.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from fasttrain.tools.bench.measure import machine_facts

RESULTS = Path(__file__).resolve().parents[1] / "results" / "dusk.json"
RECIPE = "camvid_dusk"
MEASURED = {
    "source only": "source_only_miou",
    "adapted": "adapt_miou",
    "its teacher": "teacher_miou",
    "self-training a": "self_training_miou[variant=a]",
    "self-training b": "self_training_miou[variant=b]",
    "self-training c": "self_training_miou[variant=c]",
    "soup": "soup_miou",
}
KEPT = ("miou", "aacc", "macc", "mdice", "iou", "classes", "samples")


def main() -> None:
    """Run the seeds that are not in the results yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("camvid", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--work", type=Path, required=True, help="folder of the recipe's stages, a sub-folder a seed")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--set", action="append", default=[], dest="changes", help="of the recipe; not for the results")
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    if given.changes and given.results == RESULTS:
        sys.exit("with --set, say where the results go (--results): they are not those of the recipe")
    settings = {"recipe": RECIPE, "changes": given.changes}
    results = stored(given.results, settings)
    results["machine"] = machine_facts()
    for seed in given.seeds:
        if str(seed) not in results["runs"]:
            results["runs"][str(seed)] = run(given.camvid, given.weights, given.work / str(seed), seed, given.changes)
            results["verdict"] = verdict(results["runs"])
            keep(given.results, results)
    print_table(results)


def run(camvid: Path, weights: Path, out: Path, seed: int, changes: list[str]) -> dict[str, Any]:
    """All stages with a seed: figures of each measured model, and the seconds that the stages took."""
    sets = [f"data={camvid}", f"weights={weights}", f"seed={seed}", *changes]
    command = [sys.executable, "-m", "fasttrain.cli.app", "recipe", "run", RECIPE, "--out", str(out), "--json"]
    command += [word for entry in sets for word in ("--set", entry)]
    started = time.monotonic()
    done = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    if done.returncode:
        sys.exit(f"seed {seed}: the recipe has ended with {done.returncode}; run this again to go on")
    figures = json.loads(done.stdout)["results"]
    measured = {name: {key: figures[stage][key] for key in KEPT} for name, stage in MEASURED.items()}
    return {"seconds": round(time.monotonic() - started, 1), "measured": measured}


def stored(path: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """What was measured before, with the same settings."""
    results: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"settings": settings, "runs": {}}
    if results["settings"] != settings:
        sys.exit(f"{path} was measured with other settings: {results['settings']}; move it away")
    return results


def keep(path: Path, results: dict[str, Any]) -> None:
    """Write the results in place of what is there."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(results, indent=2) + "\n")
    part.replace(path)


def verdict(runs: dict[str, Any]) -> dict[str, Any]:
    """Mean mIoU of each model over the seeds, and whether adaptation is at least as good as the source alone."""
    means = {
        name: round(statistics.mean(run["measured"][name]["miou"] for run in runs.values()), 4) for name in MEASURED
    }
    return {"seeds": len(runs), "miou": means, "adapted_at_least_source": means["adapted"] >= means["source only"]}


def print_table(results: dict[str, Any]) -> None:
    """mIoU of each model, a column a seed."""
    runs = results["runs"]
    print(f"{'mIoU on dusk_test':18} " + " ".join(f"seed {seed:>2}" for seed in runs) + "    mean")
    for name, mean in results["verdict"]["miou"].items():
        values = " ".join(f"{run['measured'][name]['miou']:7.4f}" for run in runs.values())
        print(f"{name:18} {values} {mean:7.4f}")
    print("minutes            " + " ".join(f"{run['seconds'] / 60:7.1f}" for run in runs.values()))


if __name__ == "__main__":
    main()
