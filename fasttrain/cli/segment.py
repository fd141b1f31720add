"""Commands that learn, measure and predict masks: the group ``segment``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from fasttrain.base.config import apply_overrides, load_settings, read_config
from fasttrain.cli.models import (
    AmpOption,
    BackendOption,
    DeviceOption,
    IdsOption,
    OnErrorOption,
    ThreadsOption,
    given_options,
    ids_of,
    merge,
    named_pairs,
    one_or_many,
)
from fasttrain.cli.output import JsonOption, finish
from fasttrain.cli.segment_adapt import adapt

if TYPE_CHECKING:
    from fasttrain.inference.segmentation.scores import ViewSettings

segment = typer.Typer(no_args_is_help=True, help="Segmentation: train, evaluate and predict masks.")

Weights = Annotated[Path, typer.Argument(help="A segmentation checkpoint, or a run's folder.")]
BatchOption = Annotated[int, typer.Option(help="Images a batch and process.", min=1)]
SizeOption = Annotated[
    int | None,
    typer.Option(help="Pixels of the images' shorter side, instead of the stored one; 0 for their own.", min=0),
]
ModeOption = Annotated[
    Literal["whole", "slide"], typer.Option(help="Show whole images, or windows that slide over them.")
]
CropOption = Annotated[
    int | None, typer.Option(help="Side of a window, for --mode slide [default: the training crops'].", min=1)
]
StrideOption = Annotated[
    int | None, typer.Option(help="Pixels from one window to the next [default: two thirds of --crop].", min=1)
]
ScalesOption = Annotated[
    str, typer.Option(help="Factors of the images' size whose probabilities are averaged: 0.5,0.75,1,1.25,1.5,1.75.")
]
HflipOption = Annotated[bool, typer.Option("--hflip", help="Average mirror images, too.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.add_typer(segment, name="segment")


@segment.callback()
def _group() -> None:
    """Segmentation: train, evaluate and predict masks."""


segment.command("adapt")(adapt)


@segment.command("train")
def train(
    data: Annotated[list[str] | None, typer.Option(help="A .beton with masks; may be given several times.")] = None,
    val: Annotated[list[str] | None, typer.Option(help="What to validate on after each epoch.")] = None,
    ids: Annotated[str | None, typer.Option(help="Train on these samples only: a file of ids, one a line.")] = None,
    val_ids: Annotated[str | None, typer.Option(help="The same for --val.")] = None,
    extra_val: Annotated[
        list[str] | None, typer.Option(help="Further validation data by name: snow=snow.beton; may be given again.")
    ] = None,
    best: Annotated[
        str | None, typer.Option(help="Which epoch is kept as best: an expression of its figures [default: val_miou].")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="timm's name of a backbone, or smp:unet, smp:fpn, … (with --encoder) [default: resnet50]."),
    ] = None,
    encoder: Annotated[str | None, typer.Option(help="timm's name of the backbone of an smp: model.")] = None,
    head_channels: Annotated[int | None, typer.Option(help="Width of the DAFormer head [default: 256].")] = None,
    out: Annotated[str | None, typer.Option(help="The run's folder [default: runs/train].")] = None,
    weights: Annotated[
        str | None, typer.Option(help="Start from a classifier's weights (the backbone), or a segmentation checkpoint.")
    ] = None,
    weights_match: Annotated[
        Literal["name", "order"] | None, typer.Option(help="Join a classifier's weights by name [default] or by order.")
    ] = None,
    pretrained: Annotated[bool | None, typer.Option("--pretrained", help="Start from timm's weights (hub).")] = None,
    epochs: Annotated[int | None, typer.Option(help="[default: 10]")] = None,
    iterations: Annotated[int | None, typer.Option(help="Length in steps, instead of --epochs.")] = None,
    interval: Annotated[
        int | None, typer.Option(help="Steps between two validations [default: a tenth of --iterations].")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images a batch and process [default: 8].")] = None,
    size: Annotated[int | None, typer.Option(help="Side of the training crops in pixels [default: 512].")] = None,
    eval_size: Annotated[
        int | None, typer.Option(help="Pixels of the shorter side in evaluation [default: 0, the images' own].")
    ] = None,
    optimizer: Annotated[str | None, typer.Option(help="See train --list-optimizers [default: adamw].")] = None,
    lr: Annotated[
        float | None, typer.Option(help="Peak learning rate; the head's is 10 times that [default: 6e-5].")
    ] = None,
    weight_decay: Annotated[float | None, typer.Option(help="[default: 0.01]")] = None,
    schedule: Annotated[str | None, typer.Option(help="As for train [default: poly of power 1].")] = None,
    warmup_epochs: Annotated[float | None, typer.Option(help="[default: 1]")] = None,
    warmup_iterations: Annotated[int | None, typer.Option(help="The same in steps, with --iterations.")] = None,
    rare_classes: Annotated[
        float | None, typer.Option(help="Temperature of rare class sampling (DAFormer: 0.01) [default: off].")
    ] = None,
    policy: Annotated[str | None, typer.Option(help="Augmentation, in timm's words.")] = None,
    ema: Annotated[float | None, typer.Option(help="Decay of the weights' moving average [default: 0, off].")] = None,
    amp: Annotated[str | None, typer.Option(help="auto, off, bf16 or fp16 [default: auto].")] = None,
    device: DeviceOption = None,
    threads: ThreadsOption = None,
    seed: Annotated[int | None, typer.Option(help="[default: 0]")] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file of settings; options win.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Any other setting: --set loss.dice=1.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    json: JsonOption = False,
) -> None:
    """Train a segmentation model; start it under torchrun for several processes."""
    optimizer_group = given_options({"name": optimizer, "lr": lr, "weight_decay": weight_decay})
    schedule_group = given_options({"kind": schedule, "warmup_epochs": warmup_epochs})
    given: dict[str, Any] = {
        "data": one_or_many(data),
        "val": one_or_many(val),
        "extra_val": named_pairs(extra_val),
        "best": best,
        "ids": ids,
        "val_ids": val_ids,
        "model": model,
        "encoder": encoder,
        "head_channels": head_channels,
        "out": out,
        "weights": weights,
        "weights_match": weights_match,
        "pretrained": pretrained,
        "epochs": epochs,
        "iterations": iterations,
        "interval": interval,
        "warmup_iterations": warmup_iterations,
        "batch_size": batch_size,
        "size": size,
        "eval_size": eval_size,
        "ema": ema,
        "amp": amp,
        "device": device,
        "threads": threads,
        "seed": seed,
        "optimizer": optimizer_group or None,
        "schedule": schedule_group or None,
        "sampling": {"rare": {"temperature": rare_classes}} if rare_classes is not None else None,
        "augment": {"policy": policy} if policy is not None else None,
    }
    values = merge(read_config(config) if config else {}, given_options(given))
    values = apply_overrides(values, set_ or [])
    if "data" not in values:
        raise typer.BadParameter("say what to train on", param_hint="--data")

    from fasttrain.training.segmentation.run import train_segmenter
    from fasttrain.training.segmentation.settings import SegmentSettings

    result = train_segmenter(load_settings(SegmentSettings, values, "segment train"), resume=resume)
    finish(dict(result.__dict__), json)


@segment.command("evaluate")
def evaluate(
    weights: Weights,
    data: Annotated[Path, typer.Argument(help="A .beton with masks.")],
    mode: ModeOption = "whole",
    crop: CropOption = None,
    stride: StrideOption = None,
    scales: ScalesOption = "1",
    hflip: HflipOption = False,
    size: SizeOption = None,
    batch_size: BatchOption = 8,
    device: DeviceOption = None,
    amp: AmpOption = "auto",
    threads: ThreadsOption = None,
    backend: BackendOption = "auto",
    on_error: OnErrorOption = "raise",
    ids: IdsOption = None,
    json: JsonOption = False,
) -> None:
    """Measure a model: each pixel of each mask once, at its own size, over all processes."""
    from fasttrain.base.console import print_table
    from fasttrain.base.distributed import process_group, require_agreement
    from fasttrain.base.errors import FasttrainError
    from fasttrain.inference.forward import resolve_amp
    from fasttrain.inference.segmentation.evaluate import evaluate_masks
    from fasttrain.inference.segmentation.scores import open_views
    from fasttrain.inference.skipped import report_skipped
    from fasttrain.models.segmentation.opened import open_segmenter

    how = _views(mode, crop, stride, scales, hflip)
    with process_group(device) as chosen:
        opened = open_segmenter(weights, size=size, device=chosen)
        options: dict[str, Any] = {"threads": threads, "backend": backend, "on_error": on_error, "device": chosen}
        with open_views(data, batch_size, opened.view, how, ids_of(ids), **options) as loaders:
            require_agreement({"data set": loaders[0].dataset.fingerprint, "checkpoint": opened.weights_hash})
            names, precision = opened.class_names, resolve_amp(amp, chosen)
            result = evaluate_masks(
                opened.module, loaders, opened.num_classes, names, how, amp=precision, crop=opened.crop
            )
            skipped = report_skipped(entry for loader in loaders for entry in loader.skipped)
    if not result["pixels"]:
        raise FasttrainError(f"no pixel of the masks of {data} counts, so there is nothing to measure")
    result["classes"] = names or [str(number) for number in range(opened.num_classes)]
    lists = ("iou", "acc", "dice", "precision", "classes")
    finish({**result, "skipped": skipped} if skipped else result, json, hide=lists)
    if not json:
        rows = zip(*(result[key] for key in ("classes", *lists[:4])), strict=True)
        cells = [[row[0], *(_shown(value) for value in row[1:])] for row in rows]
        print_table("classes", ["class", "IoU", "accuracy", "Dice", "precision"], cells)


@segment.command("predict")
def predict(
    weights: Weights,
    data: Annotated[Path, typer.Argument(help="A .beton file, a folder of images, or a list.")],
    out: Annotated[Path, typer.Option(help="Folder for the masks: a palette PNG each, named like the image.")],
    threshold: Annotated[
        float,
        typer.Option(help="Pixels of any class whose probability is below it become 255, for pseudo-labels.", min=0),
    ] = 0.0,
    overlays: Annotated[Path | None, typer.Option(help="Folder for pictures of images under their masks.")] = None,
    mode: ModeOption = "whole",
    crop: CropOption = None,
    stride: StrideOption = None,
    scales: ScalesOption = "1",
    hflip: HflipOption = False,
    size: SizeOption = None,
    batch_size: BatchOption = 8,
    device: DeviceOption = None,
    amp: AmpOption = "auto",
    threads: ThreadsOption = None,
    backend: BackendOption = "auto",
    on_error: OnErrorOption = "raise",
    ids: IdsOption = None,
    json: JsonOption = False,
) -> None:
    """Write the mask of every image of a data set, at the image's size."""
    from fasttrain.base.console import print_table
    from fasttrain.base.distributed import process_group
    from fasttrain.inference.forward import resolve_amp
    from fasttrain.inference.segmentation.predict import predict_masks
    from fasttrain.models.segmentation.opened import open_segmenter

    how = _views(mode, crop, stride, scales, hflip)
    with process_group(device) as chosen:
        result = predict_masks(
            open_segmenter(weights, size=size, device=chosen),
            data,
            out,
            how,
            threshold=threshold,
            overlays=overlays,
            batch_size=batch_size,
            device=chosen,
            amp=resolve_amp(amp, chosen),
            ids=ids_of(ids),
            threads=threads,
            backend=backend,
            on_error=on_error,
        )
    finish(result, json, hide=("classes",))
    if not json:
        cells = [[entry["class"], _shown(entry["pixels"]), _shown(entry["kept"])] for entry in result["classes"]]
        print_table("classes", ["class", "share of pixels", "kept"], cells)


def _views(mode: str, crop: int | None, stride: int | None, scales: str, hflip: bool) -> "ViewSettings":
    from fasttrain.inference.segmentation.scores import ViewSettings

    try:
        factors = [float(part) for part in scales.split(",")]
    except ValueError:
        raise typer.BadParameter(f"{scales!r} is no list such as 0.75,1,1.25", param_hint="--scales") from None
    values = {"mode": mode, "crop": crop, "stride": stride, "scales": factors, "hflip": hflip}
    return load_settings(ViewSettings, values, "views")


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
