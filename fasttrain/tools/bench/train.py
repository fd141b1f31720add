"""`bench train`: images a second and seconds to an accuracy, by our training and by the peers that are installed."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from fasttrain.base.console import say
from fasttrain.base.errors import ConfigError
from fasttrain.base.process import available_cores
from fasttrain.models.create import eval_view_of
from fasttrain.models.weights import Match
from fasttrain.tools.bench import loader_data, train_data
from fasttrain.tools.bench.loader import ratios_to_peers
from fasttrain.tools.bench.loader_job import Entrant, absence, choose
from fasttrain.tools.bench.measure import (
    Contestant,
    Outcome,
    interleaved,
    machine_facts,
    python_command,
    scratch_folder,
)
from fasttrain.tools.bench.train_job import DEFAULTS, EQUAL, TRAINERS, TrainJob
from fasttrain.training.optimizers import create_optimizer, peak_lr
from fasttrain.training.settings import OptimizerSettings, TrainSettings

OPTIMIZERS = ("sgd", "adamw")
AMPS = ("off", "bf16")
UNCOUNTED = 8
MOMENTUM = 0.9
TRAIN_PY_BATCH_SIZE = 128  # the default of timm's train.py
LEARNED = 0.1  # of the first loss: by so much the others' has to fall before one that does not learn can be told
LEAST_SHARE = 0.25  # of the others' fall, to be had by each
OWN_BATCH_SIZES = {
    "fasttrain-defaults": int(TrainSettings.model_fields["batch_size"].default),
    "timm-defaults": TRAIN_PY_BATCH_SIZE,
}
OWN_SETTINGS = {
    "fasttrain-defaults": (
        "AdamW at 5e-4, weight decay 0.05, one epoch of warm-up, a cosine for each step, batches of 64, channels-last, "
        "random crops and mirrors, a thread a core; bf16 on a GPU"
    ),
    "timm-defaults": (
        "SGD with Nesterov momentum 0.9 at 0.1 for 256 images, weight decay 2e-5, five epochs of warm-up, a cosine for "
        "each epoch, batches of 128, contiguous, float32, random crops of random filters, mirrors, colour jitter 0.4, "
        "label smoothing 0.1, 4 workers"
    ),
}


@dataclass(frozen=True)
class TrainBench:
    """What is measured, and how.

    Attributes:
        val: images to validate on after each epoch; nothing is chosen by them. None: no accuracies.
        model: timm's name.
        weights: file that all start from; None for the model's random weights of `seed`.
        epochs: whole passes over the images.
        steps: instead, about so many steps: of one epoch with only so many images, or of as many epochs as it takes.
        optimizer: ``sgd`` (Nesterov momentum 0.9) or ``adamw``; `lr` and `weight_decay` are its defaults of
            ``fasttrain train`` where they are None.
        warmup_epochs: of the learning rate, at most half of the run.
        amp: ``off`` or ``bf16``.
        workers: decoding threads, worker processes, and torch's threads. The cores at hand by default.
        uncounted: first steps, which images/s leaves out.
        limit: only so many training images.
        target: top-1 (0–1) whose time is reported: the end of the first epoch that reaches it.
        only: names of contestants; empty for all that are installed.
        timeout_s: for one run of one contestant.
        scratch: folder for the prepared images (a temporary one by default); removed afterwards.
    """

    val: Path | None = None
    model: str = "resnet18"
    weights: Path | None = None
    weights_match: Match = "name"
    size: int = 128
    scale: tuple[float, float] = (0.08, 1.0)
    batch_size: int = 64
    epochs: int = 1
    steps: int | None = None
    optimizer: str = "sgd"
    lr: float | None = None
    weight_decay: float | None = None
    warmup_epochs: float = 1.0
    amp: str = "off"
    channels_last: bool = True
    device: str | None = None
    workers: int | None = None
    seed: int = 0
    rounds: int = 3
    uncounted: int = UNCOUNTED
    limit: int | None = None
    target: float | None = None
    only: Sequence[str] = ()
    timeout_s: float = 3600.0
    scratch: Path | None = None


def bench_train(source: Path, settings: TrainBench | None = None) -> dict[str, Any]:
    """Train a model on the images of `source`, all contestants in turns, each time in a fresh process.

    They have the same weights to start from, images, views (RandomResizedCrop, mirror, normalisation), precision,
    memory format, batch size, optimizer, learning rate of each step, steps and threads, and warm page caches; ours
    reads a `.beton`, made before, the others the same JPEG bytes. The clock runs in the epochs and not between them
    (see `Watch`). What they did is checked, so that nobody wins by not learning: number and size of the steps, learning
    rates, weights, logits, the top-1 that they found, and how far the loss fell beside the others'. Those with
    ``-defaults`` in their name train with their own settings for as many epochs.

    Returns:
        machine, results and ratios, as all ``bench`` commands give them. A ratio is one of images/s; ``to_target`` is
        that of the seconds of training until the target, theirs over ours; ``top1_difference`` is ours minus theirs.

    Raises:
        ConfigError: too few images, or settings that cannot be.
        SourceError, WeightsError: the images, the model or the weights cannot be read.
    """
    settings = settings or TrainBench()
    _check(settings)
    chosen = choose(TRAINERS, settings.only)
    with scratch_folder(settings.scratch) as folder:
        base, mean_bytes = prepare(source, folder, settings)
        jobs = [(entrant, job_of(base, entrant)) for entrant in chosen]
        short = [f"{entrant.name}: {_too_short(job)}" for entrant, job in jobs if job.steps <= job.uncounted]
        entered = [(entrant, job) for entrant, job in jobs if job.steps > job.uncounted]
        if not entered:
            remedy = "use more images or epochs, or a smaller --batch-size or --uncounted"
            raise ConfigError(f"{_too_short(jobs[0][1])}; {remedy}")
        contestants = [_contestant(entrant, job, folder) for entrant, job in entered]
        outcomes = interleaved(contestants, settings.rounds, settings.timeout_s)
    group = [(entrant, outcome) for (entrant, _), outcome in zip(entered, outcomes, strict=True)]
    flag_idle(outcomes)
    return {
        "machine": machine_facts(),
        "images": base.images,
        "mean_bytes": mean_bytes,
        "val_images": base.val_images,
        **{key: getattr(base, key) for key in ("model", "classes", "size", "batch_size", "epochs", "steps", "device")},
        **{key: getattr(base, key) for key in ("optimizer", "lr", "weight_decay", "warmup_steps", "amp")},
        "channels_last": base.channels_last,
        "uncounted": base.uncounted,
        "target": base.target,
        "results": [outcome.as_json() for outcome in outcomes],
        "ratios": further_ratios(ratios_to_peers(group), outcomes),
        "missing": [f"{entrant.name}: {absence(entrant)}" for entrant in TRAINERS if entrant.missing()] + short,
        "own_settings": {entrant.name: OWN_SETTINGS[entrant.name] for entrant, job in entered if job.settings != EQUAL},
    }


def _check(settings: TrainBench) -> None:
    for what, value, allowed in (
        ("optimizer", settings.optimizer, OPTIMIZERS),
        ("precision", settings.amp, AMPS),
    ):
        if value not in allowed:
            raise ConfigError(f"there is no {what} {value!r} here; choose of {', '.join(allowed)}")
    if not 0 < settings.scale[0] <= settings.scale[1] <= 1:
        raise ConfigError(f"scale must be two shares of the area, the smaller one first, not {settings.scale}")
    if settings.target is not None and settings.val is None:
        raise ConfigError("the time to a top-1 needs images to find it on: name them with --val")


def prepare(source: Path, folder: Path, settings: TrainBench) -> tuple[TrainJob, int]:
    """Store images and weights in `folder`: the job of equal settings without a function, and bytes an image.

    Raises:
        ConfigError: the images have no classes, or those of the two sets differ.
        SourceError, WeightsError: the images, the model or the weights cannot be read.
    """
    view = eval_view_of(settings.model, settings.size)
    training = train_data.labelled(source)
    images, epochs = _length(min(len(training), settings.limit or len(training)), settings)
    training = training.take(range(images))
    workers, val_images = available_cores(), 0
    say(f"preparing {images} images")
    beton, files, mean_bytes = train_data.write_images(training, folder, "train", workers)
    val_beton = val_files = ""
    if settings.val is not None:
        validation = train_data.join_classes(train_data.labelled(settings.val), training.class_names, str(settings.val))
        val_images = len(validation)
        val_beton, val_files, _ = train_data.write_images(validation, folder, "val", workers)
    start = folder / "start.safetensors"
    classes = len(training.class_names)
    train_data.write_start(
        start, settings.model, classes, view.size, settings.seed, settings.weights, settings.weights_match
    )
    loader_data.warm(folder.rglob("*"))
    lr, weight_decay = _rates(settings)
    job = TrainJob(
        function="",
        settings=EQUAL,
        model=settings.model,
        weights=str(start),
        classes=classes,
        images=images,
        val_images=val_images,
        size=view.size,
        mean=tuple(view.mean),
        std=tuple(view.std),
        crop_pct=view.crop_pct,
        crop_mode=view.crop_mode,
        interpolation=view.interpolation,
        scale=settings.scale,
        batch_size=settings.batch_size,
        epochs=epochs,
        optimizer=settings.optimizer,
        lr=lr,
        weight_decay=weight_decay,
        momentum=MOMENTUM,
        warmup_steps=0,
        amp=settings.amp,
        channels_last=settings.channels_last,
        device=settings.device or ("cuda" if torch.cuda.is_available() else "cpu"),
        threads=settings.workers or available_cores(),
        seed=settings.seed,
        uncounted=settings.uncounted,
        files=files,
        val_files=val_files,
        beton=beton,
        val_beton=val_beton,
        target=settings.target,
    )
    warmup = min(round(settings.warmup_epochs * job.steps_per_epoch), job.steps // 2)
    return replace(job, warmup_steps=warmup), mean_bytes


def _length(images: int, settings: TrainBench) -> tuple[int, int]:
    """Images and epochs."""
    if settings.steps is None:
        return images, settings.epochs
    wanted = settings.steps * settings.batch_size
    if wanted <= images:
        return wanted, 1
    return images, math.ceil(settings.steps / max(1, images // settings.batch_size))


def _rates(settings: TrainBench) -> tuple[float, float]:
    """Learning rate at the peak and weight decay."""
    chosen = OptimizerSettings(name=settings.optimizer, lr=settings.lr, weight_decay=settings.weight_decay)
    probe = create_optimizer(torch.nn.Linear(1, 1), chosen)  # tells the default of what is not given
    return peak_lr(chosen), max(float(group["weight_decay"]) for group in probe.param_groups)


def job_of(base: TrainJob, entrant: Entrant) -> TrainJob:
    """The job of one contestant."""
    if DEFAULTS not in entrant.works:
        return replace(base, function=entrant.function)
    return replace(base, function=entrant.function, settings=DEFAULTS, batch_size=OWN_BATCH_SIZES[entrant.name])


def _too_short(job: TrainJob) -> str:
    return (
        f"{job.images} images in batches of {job.batch_size} are {job.steps} steps in {job.epochs} epochs, and the "
        f"first {job.uncounted} are not counted"
    )


def _contestant(entrant: Entrant, job: TrainJob, folder: Path) -> Contestant:
    path = folder / f"{entrant.name}.json"
    job.write(path)
    labels: dict[str, Any] = {"work": "fit", "settings": job.settings, "source": entrant.source}
    if job.settings == EQUAL:
        labels["threads"] = job.threads
    return Contestant(entrant.name, labels, python_command("fasttrain.tools.bench.train_run", path), "images/s")


def flag_idle(outcomes: Sequence[Outcome]) -> None:
    """Turn those into errors whose loss fell by less than a quarter of what the median contestant's fell by.

    Only among equal settings, and only where that median has learned something: a few steps tell nothing.
    """
    equal = [
        outcome for outcome in outcomes if outcome.error is None and outcome.contestant.labels["settings"] == EQUAL
    ]
    falls = {outcome.contestant.name: _fall(outcome) for outcome in equal}
    if len(falls) < 2:
        return
    usual = statistics.median_high(falls.values())
    first = statistics.median(extra["first_loss"] for outcome in equal for extra in outcome.extras)
    for outcome in equal:
        fall = falls[outcome.contestant.name]
        if usual > LEARNED * first and fall < LEAST_SHARE * usual:
            outcome.error = f"it did not learn: its loss fell by {fall:.3f}, that of the others by {usual:.3f}"


def _fall(outcome: Outcome) -> float:
    return float(statistics.median(extra["first_loss"] - extra["loss"] for extra in outcome.extras))


def further_ratios(ratios: list[dict[str, Any]], outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """The ratios with ``to_target`` and ``top1_difference``, where both have these figures."""
    results = {outcome.contestant.name: outcome.as_json() for outcome in outcomes}
    found = []
    for entry in ratios:
        ours, theirs = results[entry["ours"]], results[entry["theirs"]]
        more: dict[str, float] = {}
        if ours.get("target_s") and theirs.get("target_s"):
            more["to_target"] = round(theirs["target_s"] / ours["target_s"], 3)
        if None not in (ours.get("top1"), theirs.get("top1")):
            more["top1_difference"] = round(ours["top1"] - theirs["top1"], 4)
        found.append({**entry, **more})
    return found
