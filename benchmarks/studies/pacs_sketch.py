"""PACS, photo + art_painting + cartoon to sketch: `fasttrain train` beside a plain timm fine-tune.

Both start from the same weights and a new head of zeros, and take the same number of steps with the same augmentation
(RandomResizedCrop 0.08-1 bilinear, mirror), optimizer, schedule, batch size and image size; sketch is only looked at
after the last epoch, so nothing is chosen on it. The plain fine-tune uses torchvision's ImageFolder, timm's transforms,
loader, optimizer and scheduler, and no code of fasttrain.

    python benchmarks/studies/pacs_sketch.py PACS_FOLDER WEIGHTS.pth --seeds 0 1 2

Resumable: results are kept per seed in ``benchmarks/results/pacs_sketch.json``; seeds that are there are not run again.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import timm
import torch
from timm.data import create_loader, create_transform
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from torchvision.datasets import ImageFolder

RESULTS = Path(__file__).resolve().parents[1] / "results" / "pacs_sketch.json"
TRAIN_DOMAINS = ("photo", "art_painting", "cartoon")
MODEL = "tf_efficientnet_lite0"
SETTINGS = {"epochs": 4, "batch_size": 32, "size": 128, "lr": 5e-4, "weight_decay": 0.05, "warmup_epochs": 1}


def make_tree(pacs: Path, folder: Path) -> tuple[Path, Path]:
    """Class folders of the three training domains together (file names prefixed by the domain), and of sketch."""
    train = folder / "train"
    for domain in TRAIN_DOMAINS:
        for image in sorted((pacs / domain).glob("*/*")):
            target = train / image.parent.name / f"{domain}_{image.name}"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(image.resolve())
    return train, pacs / "sketch"


def fasttrain(*arguments: str) -> dict:
    """The result of a command."""
    command = [sys.executable, "-m", "fasttrain.cli.app", *arguments, "--json"]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def train_and_evaluate(folder: Path, weights: Path, seed: int, run: Path, *options: str) -> float:
    """Top-1 on ``test.beton`` of a model trained on ``train.beton``; `options` are for both commands."""
    settings = [f"--{key.replace('_', '-')}={value}" for key, value in SETTINGS.items()]
    fasttrain(
        *("train", "--data", str(folder / "train.beton"), "--model", MODEL, "--out", str(run), "--seed", str(seed)),
        *("--weights", str(weights), "--weights-match", "order", *settings, *options),
    )
    return fasttrain("evaluate", str(run), str(folder / "test.beton"), *options)["top1"]


def stored_results(path: Path) -> dict:
    """What was measured before, with the same settings."""
    results = json.loads(path.read_text()) if path.exists() else {"settings": SETTINGS, "runs": {}}
    if results["settings"] != SETTINGS:
        sys.exit(f"{path} was measured with other settings: {results['settings']}; move it away")
    return results


def print_means(runs: dict, names: Iterable[str]) -> None:
    """A line for each contestant, over the seeds; `runs` has the top-1 of each by seed and name."""
    for name in names:
        values = [run[name] for run in runs.values() if name in run]
        print(f"{name:10} mean top-1 {statistics.mean(values):.4f}  min {min(values):.4f}  max {max(values):.4f}")


def run_fasttrain(train: Path, test: Path, weights: Path, seed: int, folder: Path) -> dict:
    """Build, train and evaluate through the command line; seconds include all three."""
    started = time.monotonic()
    for name, source in (("train", train), ("test", test)):
        fasttrain("build", str(source), str(folder / f"{name}.beton"), "--force")
    top1 = train_and_evaluate(folder, weights, seed, folder / f"run{seed}")
    return {"top1": top1, "seconds": time.monotonic() - started}


def run_timm(train: Path, test: Path, weights: Path, seed: int) -> dict:
    """The plain fine-tune."""
    started = time.monotonic()
    torch.manual_seed(seed)
    size, batch = SETTINGS["size"], SETTINGS["batch_size"]
    model = timm.create_model(MODEL, num_classes=7)
    load_by_order(model, weights)
    model = model.to(memory_format=torch.channels_last)
    config = timm.data.resolve_data_config({"img_size": size}, model=model)
    statistics_ = {"mean": config["mean"], "std": config["std"]}
    common = {"input_size": (3, size, size), "batch_size": batch, "use_prefetcher": False, "num_workers": 2}
    training = ImageFolder(train)
    loader = create_loader(
        training, is_training=True, interpolation="bilinear", color_jitter=None, **common, **statistics_
    )
    loader.dataset.transform = create_transform(
        size, is_training=True, interpolation="bilinear", color_jitter=None, **statistics_
    )
    testing = create_loader(
        ImageFolder(test),
        is_training=False,
        interpolation="bicubic",
        crop_pct=config["crop_pct"],
        **common,
        **statistics_,
    )
    optimizer = create_optimizer_v2(model, "adamw", lr=SETTINGS["lr"], weight_decay=SETTINGS["weight_decay"])
    steps = len(loader)
    scheduler = CosineLRScheduler(
        optimizer,
        t_initial=steps * (SETTINGS["epochs"] - SETTINGS["warmup_epochs"]),
        warmup_t=steps * SETTINGS["warmup_epochs"],
        warmup_lr_init=SETTINGS["lr"] / steps,
        warmup_prefix=True,
        t_in_epochs=False,
    )
    done = 0
    for _ in range(SETTINGS["epochs"]):
        model.train()
        for images, labels in loader:
            scheduler.step_update(done)
            loss = torch.nn.functional.cross_entropy(model(images.to(memory_format=torch.channels_last)), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            done += 1
    model.eval()
    hits = 0
    with torch.inference_mode():
        for images, labels in testing:
            hits += int((model(images.to(memory_format=torch.channels_last)).argmax(1) == labels).sum())
    return {"top1": hits / len(testing.dataset), "seconds": time.monotonic() - started, "steps": done}


def load_by_order(model: torch.nn.Module, weights: Path) -> None:
    """Zip two state dicts whose tensors are in the same order; the new classifier starts from 0, as here."""
    source = torch.load(weights, map_location="cpu", weights_only=True)
    names = [key for key in model.state_dict() if not key.endswith("num_batches_tracked")]
    values = [value for key, value in source.items() if not key.endswith("num_batches_tracked")]
    state = {key: value for key, value in zip(names, values, strict=True) if not key.startswith("classifier.")}
    model.load_state_dict(state, strict=False)
    for parameter in model.get_classifier().parameters():
        torch.nn.init.zeros_(parameter)


def main() -> None:
    """Run the seeds that are not in the results yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pacs", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    results = stored_results(RESULTS)
    results["machine"] = f"{len(os.sched_getaffinity(0))} cores, {platform.machine()}, torch {torch.__version__}"
    folder = Path(tempfile.mkdtemp(prefix="pacs_sketch_"))
    try:
        train, test = make_tree(arguments.pacs, folder)
        for seed in arguments.seeds:
            run = results["runs"].setdefault(str(seed), {})
            if "fasttrain" not in run:
                run["fasttrain"] = run_fasttrain(train, test, arguments.weights, seed, folder)
                RESULTS.write_text(json.dumps(results, indent=2) + "\n")
            if "timm" not in run:
                run["timm"] = run_timm(train, test, arguments.weights, seed)
                RESULTS.write_text(json.dumps(results, indent=2) + "\n")
            print(seed, run, flush=True)
    finally:
        shutil.rmtree(folder)
    tops = {seed: {name: part["top1"] for name, part in run.items()} for seed, run in results["runs"].items()}
    print_means(tops, ("fasttrain", "timm"))


if __name__ == "__main__":
    main()
