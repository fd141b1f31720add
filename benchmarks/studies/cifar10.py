"""CIFAR-10 from nothing: `fasttrain build`, `fasttrain train --config recipes/...`, top-1 of the last epoch by seed.

The images are JPEG files of 32 x 32 pixels, quality 75 with halved chroma: damaged in comparison with the original, on
which the peers' figures stand. The test set is looked at once a run, after its last epoch. Nothing was chosen on it:
models, rates and lengths were chosen with `tune`, on a tenth of the training set that those runs were not trained on.
Averaged test-time views (``shift``) are stated beside the plain accuracy, and so is the mean of two runs' predictions
on them: of seeds 0 and 1, 2 and 3, and so on.

    python benchmarks/studies/cifar10.py account                       # FLOP of a step, seconds, epochs that fit
    python benchmarks/studies/cifar10.py tune CIFAR10.tar.xz cifar10 --set optimizer.lr=0.2 --share 0.2
    python benchmarks/studies/cifar10.py run CIFAR10.tar.xz --variants cifar10 cifar10_94 --seeds 0 1 2

Resumable: `run` keeps its results by variant and seed in ``benchmarks/results/cifar10.json``; what is there is not run
again, and a run that was interrupted goes on from its last state (it is marked, since its seconds are those of the last
stretch). `--set` is for other machines, and part of the variant's name: ``--set device=cuda``.
"""

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from fasttrain.base.atomic import atomic_path
from fasttrain.base.config import apply_overrides, load_settings, read_yaml
from fasttrain.base.memory import keep_freed_memory
from fasttrain.models.create import create_model
from fasttrain.scores.table import ScoreTable
from fasttrain.tools.bench.measure import machine_facts, python_command
from fasttrain.training.optimizers import create_optimizer
from fasttrain.training.settings import TrainSettings
from fasttrain.training.winograd import apply_winograd, choose_winograd

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "cifar10.json"
WORK = ROOT / "build" / "cifar10"  # the data and the runs
VARIANTS = ("cifar10", "cifar10_94")
MINUTES = {"cifar10": 20, "cifar10_94": 40}
IMAGES = 50_000
SHIFTED = "shift.arrow"  # scores of the test set on averaged views, in a run's folder


def fasttrain(*arguments: object) -> dict[str, Any]:
    """The result of a command."""
    command = [*python_command("fasttrain.cli.app", *arguments), "--json"]
    result: dict[str, Any] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return result


def recipe(variant: str) -> Path:
    """The file of a recipe."""
    return ROOT / "recipes" / f"{variant}.yaml"


# --- data -------------------------------------------------------------------------------------------------------------


def unpacked(archive: Path) -> Path:
    """The folder with ``train`` and ``test``, made once."""
    done = WORK / "images"
    if not done.exists():
        part = WORK / "images.part"
        with tarfile.open(archive) as tar:
            tar.extractall(part, filter="data")
        part.rename(done)
    return next(path.parent for path in sorted(done.rglob("train")) if path.is_dir())


def built(archive: Path) -> float:
    """Make ``train.beton`` and ``test.beton``; the seconds it took, 0 where they are there."""
    images, seconds = unpacked(archive), 0.0
    for name in ("train", "test"):
        if not (WORK / f"{name}.beton").exists():
            started = time.monotonic()
            fasttrain("build", images / name, WORK / f"{name}.beton", "--no-index")
            seconds += time.monotonic() - started
    return seconds


# --- the study --------------------------------------------------------------------------------------------------------


def run(archive: Path, variants: list[str], seeds: list[int], overrides: list[str]) -> None:
    """Run what is not in the results yet, and print the means."""
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"runs": {}}
    results["machine"], seconds = machine_facts(), built(archive)
    if seconds:
        results["build_seconds"] = seconds
    for variant in variants:
        name = " ".join([variant, *overrides])
        settings = json.loads(json.dumps(read_yaml(recipe(variant))))  # with keys as the results have them
        entry = results["runs"].setdefault(name, {"settings": settings, "seeds": {}})
        if entry["settings"] != settings:
            sys.exit(f"{RESULTS} was measured with another {variant}.yaml; move it away")
        for seed in seeds:
            if str(seed) not in entry["seeds"]:
                entry["seeds"][str(seed)] = outcome = train_and_test(variant, seed, overrides)
                print(name, seed, outcome, flush=True)
                keep(results)
        pairs = entry.setdefault("pairs", [])
        for first in itertools.count(2 * len(pairs), 2):
            if not {str(first), str(first + 1)} <= set(entry["seeds"]):
                break
            pairs.append(together(variant, (first, first + 1), overrides))
    keep(results)
    print_means(results["runs"])


def keep(results: dict[str, Any]) -> None:
    """Write the results."""
    with atomic_path(RESULTS) as part:
        part.write_text(json.dumps(results, indent=2) + "\n")


def folder_of(variant: str, seed: int, overrides: list[str]) -> Path:
    """Where a run lies."""
    return WORK / "runs" / " ".join([variant, str(seed), *overrides]).replace("/", "_")


def together(variant: str, seeds: tuple[int, int], overrides: list[str]) -> dict[str, Any]:
    """Top-1 of the mean of two runs' predictions on averaged views."""
    tables = [folder_of(variant, seed, overrides) / SHIFTED for seed in seeds]
    mean = WORK / "mean.arrow"
    fasttrain("ensemble", *tables, "--out", mean)
    return {"seeds": seeds, "top1_tta": accuracy(mean)}


def train_and_test(variant: str, seed: int, overrides: list[str]) -> dict[str, Any]:
    """One run without validation, then the test set: the plain top-1, and that of averaged views."""
    folder = folder_of(variant, seed, overrides)
    resumed, started = folder.exists(), time.monotonic()
    chosen = [part for override in overrides for part in ("--set", override)]
    where = ("--data", WORK / "train.beton", "--out", folder, "--seed", seed)
    trained = fasttrain("train", "--config", recipe(variant), *where, *chosen, "--resume")
    train_seconds = time.monotonic() - started
    measured = fasttrain("evaluate", folder, WORK / "test.beton", "--batch-size", 500)
    test_seconds = time.monotonic() - started - train_seconds
    scores = folder / SHIFTED
    fasttrain("predict", folder, WORK / "test.beton", "--out", scores, "--tta", "shift", "--batch-size", 500)
    return {
        "top1": measured["top1"],
        "top1_tta": accuracy(scores),
        "loss": measured["loss"],
        "train_seconds": round(train_seconds, 1),
        "test_seconds": round(test_seconds, 1),
        "seconds": round(time.monotonic() - started, 1),
        "images_per_s": round(trained["images_per_s"], 1),
        "data_wait_fraction": round(trained["data_wait_fraction"], 4),
        "resumed": resumed,
    }


def accuracy(scores: Path) -> float:
    """Top-1 of a score table."""
    table = ScoreTable.read(scores)
    return float((table.scores.argmax(1) == table.labels).mean())


def print_means(runs: dict[str, Any]) -> None:
    """A line for each variant, over its seeds."""
    for name, entry in runs.items():
        found = list(entry["seeds"].values())
        for figure in ("top1", "top1_tta", "train_seconds", "seconds"):
            values = [one[figure] for one in found]
            print(f"{name:12} {figure:14} mean {statistics.mean(values):.4f} ({min(values):.4f}-{max(values):.4f})")
        for pair in entry.get("pairs", []):
            print(f"{name:12} seeds {pair['seeds']} together: {pair['top1_tta']:.4f}")


# --- what the recipes were chosen by ----------------------------------------------------------------------------------


def tune(archive: Path, variant: str, overrides: list[str], share: float, seed: int) -> None:
    """A run on `share` of nine tenths of the training set, measured on the last tenth after its last epoch."""
    built(archive)
    train, held_out = WORK / "tune.beton", WORK / "tune_val.beton"
    if not held_out.exists():
        fasttrain("build", WORK / "train.beton", train, "--val-fraction", 0.1, "--no-index", "--force")
    folder = WORK / "tuning" / str(time.time_ns())
    settings = [f"sampling.draws={round(0.9 * share * IMAGES)}"] if share < 1 else []
    chosen = [part for override in (*settings, *overrides) for part in ("--set", override)]
    started = time.monotonic()
    fasttrain("train", "--config", recipe(variant), "--data", train, "--out", folder, "--seed", seed, *chosen)
    seconds = time.monotonic() - started
    measured = fasttrain("evaluate", folder, held_out, "--batch-size", 500)
    how = {"variant": variant, "set": overrides, "share": share, "seed": seed, "seconds": round(seconds, 1)}
    print(json.dumps(how | {"top1": measured["top1"], "loss": measured["loss"]}))


def account(overrides: list[str]) -> None:
    """FLOP and seconds of a step of each recipe, and the epochs that fit into its time with a tenth to spare."""
    for variant in VARIANTS:
        values = apply_overrides(read_yaml(recipe(variant)) | {"data": "none"}, overrides)
        settings = load_settings(TrainSettings, values)
        flop, seconds = step_cost(settings)
        epoch = seconds * IMAGES / settings.batch_size
        fitting = 0.9 * 60 * MINUTES[variant] / epoch
        print(
            f"{variant}, {settings.model}, batch {settings.batch_size}: {flop / 1e9:.0f} GFLOP in {seconds:.2f} s "
            f"({flop / seconds / 1e9:.0f} GFLOP/s), {epoch:.0f} s an epoch; {fitting:.1f} epochs fit, it has "
            f"{settings.epochs} ({epoch * settings.epochs / 60:.1f} minutes)"
        )


def step_cost(settings: TrainSettings, steps: int = 2) -> tuple[float, float]:
    """FLOP (of products and direct convolutions) and seconds of a step on random images; the fastest of `steps`."""
    torch.manual_seed(0)
    model = create_model(settings.model, 10).to(memory_format=torch.channels_last)
    for name in settings.freeze:
        model.get_parameter(name).requires_grad_(False)
    called = model if settings.compile == "off" else torch.compile(model)
    optimizer = create_optimizer(model, settings.optimizer)
    images = torch.randn(settings.batch_size, 3, 32, 32).to(memory_format=torch.channels_last)
    labels = torch.randint(10, (settings.batch_size,))

    def step(forward: Any) -> None:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(forward(images), labels).backward()
        optimizer.step()

    counter = FlopCounterMode(display=False)
    with counter:
        step(model)
    apply_winograd(model, choose_winograd(model, settings.winograd, settings.batch_size, 32))
    step(called)
    seconds = []
    for _ in range(steps):
        started = time.monotonic()
        step(called)
        seconds.append(time.monotonic() - started)
    return counter.get_total_flops(), min(seconds)


def main() -> None:
    """What the first lines of this file say."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("run", "tune", "account"):
        command = commands.add_parser(name)
        command.add_argument("--set", action="append", default=[], dest="overrides")
        if name != "account":
            command.add_argument("archive", type=Path)
        if name == "run":
            command.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=VARIANTS)
            command.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
        if name == "tune":
            command.add_argument("variant", choices=VARIANTS)
            command.add_argument("--share", type=float, default=1.0)
            command.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    WORK.mkdir(parents=True, exist_ok=True)
    if arguments.command == "account":
        keep_freed_memory()  # as `fasttrain train` has it
        account(arguments.overrides)
    elif arguments.command == "tune":
        tune(arguments.archive, arguments.variant, arguments.overrides, arguments.share, arguments.seed)
    else:
        run(arguments.archive, arguments.variants, arguments.seeds, arguments.overrides)


if __name__ == "__main__":
    main()
