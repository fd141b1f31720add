"""Whether our training and timm's loop end at the same accuracy: PACS, a held-out fifth, equal settings, seed by seed.

    python benchmarks/studies/training_seeds.py PACS_FOLDER WEIGHTS.pth --seeds 0 1 2

EfficientNet-Lite 0 from the same weights (the new head is 0), the same images of all four domains, steps, views,
optimizer and learning rates (`fasttrain.tools.bench.train`); order, crops and flips are each loader's own, of the seed.
The top-1 is that of the weights after the last step, on images that nothing is chosen by. Two means are called equal if
they differ by no more than half a point, or by two standard errors of the difference where that is more.

Resumable: results are kept per seed in ``benchmarks/results/training_seeds.json``; what is there is not run again.
"""

import argparse
import json
import math
import statistics
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from fasttrain.tools.bench.loader_job import choose
from fasttrain.tools.bench.measure import machine_facts, python_command, run_to_end
from fasttrain.tools.bench.train import TrainBench, job_of, prepare
from fasttrain.tools.bench.train_job import TRAINERS

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from training import split_pacs

RESULTS = Path(__file__).resolve().parents[1] / "results" / "training_seeds.json"
OURS, THEIRS = "fasttrain", "timm"
EPOCHS = 4
SETTINGS = TrainBench(
    model="tf_efficientnet_lite0",
    size=128,
    batch_size=32,
    optimizer="adamw",
    epochs=EPOCHS,
    weights_match="order",
)
HALF_A_POINT = 0.005
KEPT = ("top1", "loss", "first_loss", "value", "train_s", "steps", "curve")


def main() -> None:
    """Run what is not in the results yet, and print the verdict."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pacs", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--limit", type=int, help="only so many training images")
    given = parser.parse_args()
    results = stored(RESULTS, {"epochs": EPOCHS, "limit": given.limit, **shown(SETTINGS)})
    results["machine"] = machine_facts()
    with tempfile.TemporaryDirectory(prefix="training_seeds_") as scratch:
        training, validation = split_pacs(given.pacs, Path(scratch))
        for seed in given.seeds:
            runs = results["runs"].setdefault(str(seed), {})
            wanted = [name for name in (OURS, THEIRS) if name not in runs]
            if not wanted:
                continue
            settings = replace(SETTINGS, val=validation, weights=given.weights, limit=given.limit, seed=seed)
            with tempfile.TemporaryDirectory(dir=scratch) as folder:
                job, _ = prepare(training, Path(folder), settings)
                for entrant in choose(TRAINERS, wanted):
                    path = Path(folder) / f"{entrant.name}.json"
                    job_of(job, entrant).write(path)
                    runs[entrant.name] = run_once(path)
                    keep(results)
            print(seed, {name: run["top1"] for name, run in runs.items()}, flush=True)
    results["verdict"] = verdict(results["runs"])
    keep(results)
    print(json.dumps(results["verdict"], indent=2))


def shown(settings: TrainBench) -> dict[str, Any]:
    """What the results depend on."""
    return {key: getattr(settings, key) for key in ("model", "size", "batch_size", "optimizer", "amp")}


def stored(path: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """What was measured before, with the same settings."""
    results = json.loads(path.read_text()) if path.exists() else {"settings": settings, "runs": {}}
    if results["settings"] != settings:
        sys.exit(f"{path} was measured with other settings: {results['settings']}; move it away")
    return results


def keep(results: dict[str, Any]) -> None:
    """Write the results in place of what is there."""
    part = RESULTS.with_suffix(".part")
    part.write_text(json.dumps(results, indent=2) + "\n")
    part.replace(RESULTS)


def run_once(path: Path) -> dict[str, Any]:
    """The figures of one contestant's run in a process of its own."""
    printed, error = run_to_end(python_command("fasttrain.tools.bench.train_run", path), timeout_s=3600)
    if error is not None:
        sys.exit(f"{path.stem}: {error}")
    figures = json.loads(printed.strip().splitlines()[-1])
    return {key: figures[key] for key in KEPT}


def verdict(runs: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Means of the top-1, their difference, and whether it is more than chance and half a point explain."""
    both = [run for run in runs.values() if OURS in run and THEIRS in run]
    ours, theirs = ([run[name]["top1"] for run in both] for name in (OURS, THEIRS))
    difference = statistics.mean(ours) - statistics.mean(theirs)
    found = {
        "seeds": len(both),
        OURS: round(statistics.mean(ours), 4),
        THEIRS: round(statistics.mean(theirs), 4),
        "difference": round(difference, 4),
    }
    if len(both) < 2:
        return {**found, "equal": None}
    error = math.sqrt((statistics.variance(ours) + statistics.variance(theirs)) / len(both))
    allowed = max(HALF_A_POINT, 2 * error)
    return {
        **found,
        "standard_error": round(error, 4),
        "allowed": round(allowed, 4),
        "equal": abs(difference) <= allowed,
    }


if __name__ == "__main__":
    main()
