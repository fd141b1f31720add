"""What each augmentation, mixing, loss and head changes: short runs beside a baseline, seed by seed.

Two tasks, both a fine-tune of EfficientNet-Lite 0 through `fasttrain train` and `fasttrain evaluate` alone:

* ``pacs``: photo + art_painting + cartoon, measured on sketch; a tenth of the training domains is left out of training
  and shown beside it (``in_domain``).
* ``long_tail``: a part of CIFAR-10 whose classes have from 1,000 down to 20 images, measured on the whole test set;
  ``rare_recall`` is that of the classes with fewer than 100.

Each family is the baseline with a few settings changed, at the values that its paper or timm uses; none was tuned here.
What is measured on is looked at once a run, after its last epoch, and nothing is chosen by it.

    python benchmarks/studies/ablation.py probe PACS_FOLDER CIFAR10.tar.xz WEIGHTS.pth   # that each starts, and acts
    python benchmarks/studies/ablation.py run PACS_FOLDER CIFAR10.tar.xz WEIGHTS.pth --seeds 0 1 2
    python benchmarks/studies/ablation.py table                           # what was measured, as Markdown

`probe` takes a few steps with each family on the same images and keeps their losses. `run` takes a few minutes of one
core a run, for the first seed of all families, then for the second, and so on. Resumable: results are kept in
``benchmarks/results/ablation.json``; what is there is not run again, and an interrupted run goes on from its last
state.
"""

import argparse
import json
import math
import os
import random
import shutil
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cifar10 import fasttrain, unpacked
from pacs_sketch import MODEL, make_tree

from fasttrain.base.atomic import atomic_path
from fasttrain.base.runs import RunFolder
from fasttrain.tools.bench.measure import machine_facts

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "ablation.json"
WORK = ROOT / "build" / "ablation"  # the data and the runs
BASELINE = "baseline"
# One core: a thread of the model; that of the loader has little to do.
OPTIONS = ("--threads=1", "--weights-match=order", "--optimizer=adamw", "--lr=5e-4", "--weight-decay=0.05")
PROBE_STEPS = 6
MOST, LEAST, RARE = 1000, 20, 100  # images of a class in the long-tailed part


@dataclass(frozen=True)
class Task:
    """A data set, and what is compared on it.

    Attributes:
        settings: of all families; the batch size is also the length of a probe's epochs.
        tests: figures by name and the `.beton` file that they are measured on.
        figures: that are compared with the baseline's.
        families: by name, what each changes.
    """

    settings: dict[str, int]
    tests: dict[str, str]
    figures: tuple[str, ...]
    families: dict[str, tuple[str, ...]]


PACS = Task(
    {"size": 128, "batch_size": 32, "epochs": 3, "warmup_epochs": 1},
    {"": "pacs_sketch", "in_domain": "pacs_val"},
    ("top1", "in_domain_top1"),  # the 420 sketches are 60 of each class: top-1 is their macro recall as well
    {
        BASELINE: (),
        "label_smoothing": ("label_smoothing=0.1",),
        "color_jitter": ("augment.color_jitter=0.4",),
        "randaugment": ("augment.policy=rand-m9-n2-mstd0.5-inc1",),
        "augmix": ("augment.policy=augmix-m3-w3",),
        "augmix_jsd": ("augment.policy=augmix-m3-w3", "loss.kind=jsd"),
        "three_augment": ("augment.policy=3a", "augment.color_jitter=0.3"),
        "trivial": ("augment.policy=trivial",),
        "corruptions": ("augment.policy=corrupt-n1-s2",),
        "erasing": ("augment.erasing.prob=0.25",),
        "mixup": ("augment.mixup=0.2",),
        "cutmix": ("augment.cutmix=1.0",),
        "mixup_cutmix": ("augment.mixup=0.2", "augment.cutmix=1.0"),
        "spectral": ("augment.spectral.prob=1.0",),
        "fourier": ("augment.fourier.prob=0.5",),
        "style": ("augment.style.prob=0.5",),
        "batch_former": ("batch_former.layers=1",),
        "multi_dropout": ("head.dropout_samples=4",),
        "cosine": ("head.kind=cosine",),
        "arcface": ("head.kind=arcface", "head.margin=0.3"),
        "arcface_subcentres": ("head.kind=arcface", "head.margin=0.3", "head.centres=3"),
        "focal": ("loss.kind=focal",),
        "bce": ("loss.kind=bce",),
    },
)
LONG_TAIL = Task(
    {"size": 64, "batch_size": 32, "epochs": 4, "warmup_epochs": 1},
    {"": "cifar10_test"},
    ("macro_recall", "rare_recall"),
    {
        BASELINE: (),
        "class_weights": ("loss.class_weights=inverse",),
        "effective_weights": ("loss.class_weights=effective",),
        "class_balance": ("sampling.class_balance=1",),
        # These two are one loss at tau = 1: they differ by rounding, which shows what chance does.
        "balanced_softmax": ("loss.kind=balanced_softmax",),
        "logit_adjustment": ("loss.kind=logit_adjustment",),
        "seesaw": ("loss.kind=seesaw",),
        "softmax_eql": ("loss.kind=softmax_eql",),
        "ohem": ("loss.hardest=0.5",),
        "focal": ("loss.kind=focal",),
        "arcface_adaptive": ("head.kind=arcface", "head.adaptive=true"),
        "batch_former": ("batch_former.layers=1",),
    },
)
TASKS = {"pacs": PACS, "long_tail": LONG_TAIL}


# --- data -------------------------------------------------------------------------------------------------------------


def build_pacs(pacs: Path) -> None:
    """Make ``pacs.beton`` and ``pacs_val.beton`` of three domains, and ``pacs_sketch.beton``; unless they are there."""
    if (WORK / "pacs_sketch.beton").exists():
        return
    with tempfile.TemporaryDirectory() as folder:
        train, sketch = make_tree(pacs, Path(folder))
        fasttrain("build", train, WORK / "pacs.beton", "--val-fraction", 0.1, "--force")
    fasttrain("build", sketch, WORK / "pacs_sketch.beton", "--force")


def build_long_tail(archive: Path) -> None:
    """Make ``long_tail.beton`` and ``cifar10_test.beton``, where they are not yet."""
    if (WORK / "cifar10_test.beton").exists():
        return
    images = unpacked(archive)
    chosen = WORK / "long_tail.txt"
    chosen.write_text("".join(f"{path} {path.parent.name}\n" for path in long_tail(images / "train")))
    fasttrain("build", chosen, WORK / "long_tail.beton", "--force")
    fasttrain("build", images / "test", WORK / "cifar10_test.beton", "--force")


def long_tail(folder: Path) -> list[Path]:
    """Files of class folders, whose number falls exponentially from class to class, always the same ones."""
    classes = sorted(path for path in folder.iterdir() if path.is_dir())
    return [
        path
        for place, images in enumerate(classes)
        for path in random.Random(place).sample(sorted(images.iterdir()), class_size(place, len(classes)))
    ]


def class_size(place: int, classes: int) -> int:
    """How many images the class at a place has."""
    return round(MOST * (LEAST / MOST) ** (place / (classes - 1)))


# --- runs -------------------------------------------------------------------------------------------------------------


def train(name: str, weights: Path, folder: Path, settings: dict[str, Any], changes: tuple[str, ...]) -> dict[str, Any]:
    """A run of `fasttrain train`, from where it was left."""
    task, _, _ = name.partition("/")
    given = [f"--{key.replace('_', '-')}={value}" for key, value in (TASKS[task].settings | settings).items()]
    changed = [part for change in changes for part in ("--set", change)]
    where = ("--data", WORK / f"{task}.beton", "--out", folder, "--model", MODEL, "--weights", weights)
    return fasttrain("train", *where, *OPTIONS, *given, *changed, "--resume")


def probe(name: str, changes: tuple[str, ...], weights: Path) -> list[float]:
    """Losses of a run's first steps, each an epoch of one batch, at a constant learning rate."""
    task, _, _ = name.partition("/")
    few = {"seed": 0, "epochs": PROBE_STEPS, "warmup_epochs": 0, "schedule": "constant"}
    one_batch = f"sampling.draws={TASKS[task].settings['batch_size']}"
    with tempfile.TemporaryDirectory(dir=WORK) as folder:
        train(name, weights, Path(folder), few, (*changes, one_batch))
        return [round(epoch["train_loss"], 4) for epoch in RunFolder(folder).read_metrics()]


def train_and_test(name: str, changes: tuple[str, ...], weights: Path, seed: int) -> dict[str, Any]:
    """The figures of one run."""
    task, _, family = name.partition("/")
    folder = WORK / "runs" / f"{task}-{family}-{seed}"
    resumed, started = folder.exists(), time.monotonic()
    trained = train(name, weights, folder, {"seed": seed}, changes)
    figures = {"train_seconds": round(time.monotonic() - started, 1), "resumed": resumed}
    figures["images_per_s"] = round(trained["images_per_s"], 1)
    for prefix, data in TASKS[task].tests.items():
        measured = fasttrain("evaluate", folder, WORK / f"{data}.beton", "--threads", 1, "--per-class")
        figures |= {f"{prefix}_{key}".strip("_"): value for key, value in told(task, measured).items()}
    shutil.rmtree(folder)
    return figures


def told(task: str, measured: dict[str, Any]) -> dict[str, float]:
    """What is kept of an evaluation."""
    recalls = [entry["accuracy"] for entry in measured["per_class"]]
    figures = {"top1": measured["top1"], "loss": measured["loss"], "macro_recall": statistics.mean(recalls)}
    if task == "long_tail":
        rare = [recall for place, recall in enumerate(recalls) if class_size(place, len(recalls)) < RARE]
        figures["rare_recall"] = statistics.mean(rare)
    return {key: round(value, 5) for key, value in figures.items()}


# --- results ----------------------------------------------------------------------------------------------------------


def stored(weights: Path) -> dict[str, Any]:
    """What was measured before, with the same settings."""
    settings = {name: task.settings for name, task in TASKS.items()}
    settings["all"] = {"model": MODEL, "options": list(OPTIONS), "weights": weights.name}
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"settings": settings, "families": {}}
    if results["settings"] != settings:
        sys.exit(f"{RESULTS} was measured with other settings: {results['settings']}; move it away")
    return results


def entry_of(results: dict[str, Any], name: str, changes: tuple[str, ...]) -> dict[str, Any]:
    """A family's place in the results."""
    entry = results["families"].setdefault(name, {"set": list(changes), "first_losses": None, "seeds": {}})
    if entry["set"] != list(changes):
        sys.exit(f"{name} was measured with other settings: {entry['set']}; take it out of {RESULTS}")
    return entry


def keep(results: dict[str, Any]) -> None:
    """Write the results, with the differences that they come to."""
    for name, entry in results["families"].items():
        task, _, _ = name.partition("/")
        baseline = results["families"].get(f"{task}/{BASELINE}")
        if baseline is not None and entry is not baseline:
            entry["difference"] = {
                figure: difference(entry["seeds"], baseline["seeds"], figure) for figure in TASKS[task].figures
            }
    with atomic_path(RESULTS) as part:
        part.write_text(json.dumps(results, indent=2) + "\n")


def difference(runs: dict[str, Any], baseline: dict[str, Any], figure: str) -> dict[str, Any]:
    """To the baseline, seed by seed: the mean, and its standard error from two seeds on."""
    found = {seed: round(run[figure] - baseline[seed][figure], 5) for seed, run in runs.items() if seed in baseline}
    values = list(found.values())
    return {
        "seeds": found,
        "mean": round(statistics.mean(values), 5) if values else None,
        "standard_error": round(statistics.stdev(values) / math.sqrt(len(values)), 5) if len(values) > 1 else None,
    }


def print_differences(results: dict[str, Any]) -> None:
    """A line for each family and figure."""
    for name, entry in results["families"].items():
        for figure, found in entry.get("difference", {}).items():
            if found["mean"] is not None:
                error = "" if found["standard_error"] is None else f" +- {found['standard_error']:.4f}"
                print(f"{name:32} {figure:14} {found['mean']:+.4f}{error}  ({len(found['seeds'])} seeds)")


def print_table(results: dict[str, Any]) -> None:
    """A table for each task in percent: the baseline's means, and the differences of the others from it."""
    for task, what in TASKS.items():
        print(f"| `{task}`: " + " | ".join(["family", *what.figures]) + " |\n" + "|---" * (1 + len(what.figures)) + "|")
        for family in what.families:
            runs = results["families"][f"{task}/{family}"]["seeds"]
            cells = [cell(runs, results["families"][f"{task}/{BASELINE}"]["seeds"], figure) for figure in what.figures]
            print(" | ".join([f"| `{family}`", *cells]) + " |")
        print()


def cell(runs: dict[str, Any], baseline: dict[str, Any], figure: str) -> str:
    """A family's figure: the mean of the baseline itself, or the difference from it with its standard error."""
    if runs is baseline:
        return f"{100 * statistics.mean(run[figure] for run in runs.values()):.1f}"
    found = difference(runs, baseline, figure)
    if found["mean"] is None:
        return ""
    error = "" if found["standard_error"] is None else f" ± {100 * found['standard_error']:.1f}"
    return f"{100 * found['mean']:+.1f}{error}"


def main() -> None:
    """What the first lines of this file say."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("table")
    for name in ("probe", "run"):
        command = commands.add_parser(name)
        command.add_argument("pacs", type=Path)
        command.add_argument("cifar10", type=Path)
        command.add_argument("weights", type=Path)
        command.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
        command.add_argument("--families", nargs="+", help="only these, as TASK/FAMILY; the default is all")
    given = parser.parse_args()
    if given.command == "table":
        print_table(json.loads(RESULTS.read_text()))
        return
    families = {f"{task}/{name}": changes for task, what in TASKS.items() for name, changes in what.families.items()}
    if given.families and (unknown := set(given.families) - set(families)):
        parser.error(f"there is no family {', '.join(sorted(unknown))}; known are {', '.join(families)}")
    chosen = {name: changes for name, changes in families.items() if name in (given.families or families)}
    os.environ["OMP_NUM_THREADS"] = "1"
    (WORK / "runs").mkdir(parents=True, exist_ok=True)
    build_pacs(given.pacs)
    build_long_tail(given.cifar10)
    results = stored(given.weights)
    results["machine"] = machine_facts()
    if given.command == "probe":
        for name, changes in chosen.items():
            entry = entry_of(results, name, changes)
            if entry["first_losses"] is None:
                entry["first_losses"] = probe(name, changes, given.weights)
                keep(results)
            print(name, entry["first_losses"], flush=True)
        return
    for seed in given.seeds:  # the first one of all families before the second of any
        for name, changes in chosen.items():
            runs = entry_of(results, name, changes)["seeds"]
            if str(seed) not in runs:
                runs[str(seed)] = train_and_test(name, changes, given.weights, seed)
                keep(results)
                print(name, seed, runs[str(seed)], flush=True)
    print_differences(results)


if __name__ == "__main__":
    main()
