"""Encoders that have seen no label, on a part of CIFAR-10: MoCo v2 and MAE beside the random weights they began with.

    python benchmarks/studies/pretraining.py run CIFAR10.tar.xz                       # both methods, seeds 0 1 2
    python benchmarks/studies/pretraining.py run CIFAR10.tar.xz --methods moco --seeds 0
    python benchmarks/studies/pretraining.py try CIFAR10.tar.xz moco --set epochs=2   # one run, nothing is kept

A method is trained on some images of each class, without their labels. `fasttrain probe` measures it on test images:
20 nearest neighbours among the training images, and a linear classifier on the same features. The random encoder is a
model of the same kind that has learned nothing, the statistics of its normalisation layers estimated on the training
images. `PARTS` says which images these are; the test images are looked at after the last epoch alone, `try` measures
on others. What differs from the published settings, so that a run takes less than five minutes on two CPU cores, is
said in `VARIANTS`.

Resumable: results are kept by method and seed in ``benchmarks/results/pretraining.json``, what is there is not run
again, and a run that was interrupted goes on from its last state.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
from cifar10 import ROOT, fasttrain, unpacked
from cifar10 import WORK as ARCHIVE_WORK

from fasttrain.base.atomic import atomic_path
from fasttrain.inference.statistics import estimate_statistics
from fasttrain.loading.loader import Loader
from fasttrain.loading.views import train_view
from fasttrain.models.checkpoint import CheckpointInfo, save_weights
from fasttrain.models.create import create_model, eval_view_of
from fasttrain.tools.bench.measure import machine_facts

RESULTS = ROOT / "benchmarks" / "results" / "pretraining.json"
WORK = ROOT / "build" / "pretraining"
# Folder, and which of each class's images in the order of their names.
PARTS = {"train": ("train", 0, 1000), "held_out": ("train", 1000, 1200), "test": ("test", 500, 700)}
VARIANTS: dict[str, dict[str, Any]] = {
    # A second encoder that follows faster, and a lower temperature, since a run has a thousand steps and not millions;
    # no blur, which leaves nothing of 32 pixels (as in MoCo's own CIFAR demonstration).
    "moco": {
        "model": "resnet10_32",
        "epochs": 20,
        "batch_size": 64,
        "moco.momentum": 0.99,
        "moco.temperature": 0.1,
        "moco.queue": 2048,
        "moco.groups": 2,
        "augment.blur.prob": 0,
        "optimizer.lr": 0.02,
        "optimizer.weight_decay": 5e-4,
        "schedule.warmup_epochs": 1,
    },
    # A decoder in proportion to the encoder, and a rate for as few steps.
    "mae": {
        "model": "vit_tiny_patch4_32",
        "epochs": 16,
        "batch_size": 128,
        "mae.decoder_width": 64,
        "mae.decoder_depth": 1,
        "mae.decoder_heads": 2,
        "optimizer.lr": 5e-4,
        "schedule.warmup_epochs": 1,
    },
}
FIGURES = ("knn_top1", "linear_top1")


def built(archive: Path) -> None:
    """Make a `.beton` of each part, once."""
    ARCHIVE_WORK.mkdir(parents=True, exist_ok=True)
    images = unpacked(archive)
    for name, (part, first, last) in PARTS.items():
        if not (WORK / f"{name}.beton").exists():
            source, ids = images / part, WORK / f"{name}.ids"
            chosen = [path for folder in sorted(source.iterdir()) for path in sorted(folder.iterdir())[first:last]]
            ids.write_text("".join(f"{path.relative_to(source)}\n" for path in chosen))
            fasttrain("build", source, WORK / f"{name}.beton", "--no-index", "--ids", ids)


def random_encoder(method: str, seed: int, out: Path) -> Path:
    """A checkpoint of weights that have learned nothing."""
    name = VARIANTS[method]["model"]
    torch.manual_seed(seed)
    encoder, view = create_model(name, 0, size=32), eval_view_of(name, 32)
    looks = train_view(32, scale=(0.2, 1.0), mean=view.mean, std=view.std)
    with Loader(WORK / "train.beton", 250, view=looks, seed=seed) as loader:
        estimate_statistics(encoder, loader, "off", batches=10)
    save_weights(out, encoder.state_dict(), CheckpointInfo(name, 0, None, view.model_dump(mode="json")))
    return out


def probed(checkpoint: Path, part: str) -> dict[str, float]:
    """Top-1 by neighbours and by a linear classifier."""
    found = fasttrain("probe", checkpoint, WORK / "train.beton", WORK / f"{part}.beton", "--batch-size", 250)
    return {name: found[name] for name in FIGURES}


def one_run(method: str, seed: int, folder: Path, part: str, overrides: list[str]) -> dict[str, Any]:
    """Train, and measure the encoder on a part of the images beside a random one."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    resumed, started = folder.exists(), time.monotonic()
    settings = [f"{key}={value}" for key, value in VARIANTS[method].items()] + overrides
    chosen = [part for setting in settings for part in ("--set", setting)]
    where = (WORK / "train.beton", "--method", method, "--out", folder, "--seed", seed)
    trained = fasttrain("pretrain", *where, *chosen, "--resume")
    train_seconds = time.monotonic() - started
    learned_nothing = random_encoder(method, seed, folder / "random.safetensors")
    return {
        "trained": probed(folder, part),
        "random": probed(learned_nothing, part),
        **{name: trained[name] for name in ("train_loss", "feature_std", "effective_rank", "top_variance")},
        "images_per_s": round(trained["images_per_s"], 1),
        "train_seconds": round(train_seconds, 1),
        "seconds": round(time.monotonic() - started, 1),
        "resumed": resumed,
    }


def run(archive: Path, methods: list[str], seeds: list[int]) -> None:
    """Run what is not in the results yet, and print the means."""
    parts = {name: list(part) for name, part in PARTS.items()}
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"parts": parts, "runs": {}}
    results["machine"] = machine_facts()
    built(archive)
    for method in methods:
        entry = results["runs"].setdefault(method, {"settings": VARIANTS[method], "seeds": {}})
        if entry["settings"] != VARIANTS[method] or results["parts"] != parts:
            sys.exit(f"{RESULTS} was measured with other settings or images; move it away")
        for seed in seeds:
            if str(seed) not in entry["seeds"]:
                folder = WORK / "runs" / f"{method}_{seed}"
                entry["seeds"][str(seed)] = one_run(method, seed, folder, "test", [])
                print(method, seed, entry["seeds"][str(seed)], flush=True)
                with atomic_path(RESULTS) as part:
                    part.write_text(json.dumps(results, indent=2) + "\n")
    print_means(results["runs"])


def print_means(runs: dict[str, Any]) -> None:
    """A line for each method and figure, over its seeds, and how many seeds are ahead of their random encoder."""
    for method, entry in runs.items():
        found = list(entry["seeds"].values())
        for figure in FIGURES:
            ahead = sum(one["trained"][figure] > one["random"][figure] for one in found)
            for kind in ("random", "trained"):
                values = [one[kind][figure] for one in found]
                spread = f"{statistics.mean(values):.4f} ({min(values):.4f}-{max(values):.4f})"
                print(f"{method:5} {figure:12} {kind:8} mean {spread}  {ahead}/{len(found)} ahead")


def main() -> None:
    """What the first lines of this file say."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    whole, single = commands.add_parser("run"), commands.add_parser("try")
    for command in (whole, single):
        command.add_argument("archive", type=Path)
    whole.add_argument("--methods", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    whole.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    single.add_argument("method", choices=list(VARIANTS))
    single.add_argument("--set", action="append", default=[], dest="overrides")
    single.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    WORK.mkdir(parents=True, exist_ok=True)
    if arguments.command == "run":
        run(arguments.archive, arguments.methods, arguments.seeds)
        return
    built(arguments.archive)
    folder = WORK / "tries" / str(time.time_ns())
    print(json.dumps(one_run(arguments.method, arguments.seed, folder, "held_out", arguments.overrides)))


if __name__ == "__main__":
    main()
