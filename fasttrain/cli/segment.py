"""Commands that learn, measure and predict masks: the group ``segment``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from fasttrain.cli.models import (
    AmpOption,
    BackendOption,
    DeviceOption,
    IdsOption,
    OnErrorOption,
    ThreadsOption,
    ids_of,
)
from fasttrain.cli.output import JsonOption, finish
from fasttrain.cli.segment_adapt import adapt
from fasttrain.cli.training_options import (
    CropSideOption,
    EmaOption,
    EvalSizeOption,
    ExtraValOption,
    IterationsOption,
    OutOption,
    PrecisionOption,
    PretrainedOption,
    ResumeOption,
    SeedOption,
    SegmentConfigOption,
    SegmentLrOption,
    SegmentMatchOption,
    SegmentWeightsOption,
    TrainIdsOption,
    ValIdsOption,
    ValOption,
    factors_of,
    given_options,
    named_pairs,
    one_or_many,
    settings_values,
)

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
    val: ValOption = None,
    ids: TrainIdsOption = None,
    val_ids: ValIdsOption = None,
    extra_val: ExtraValOption = None,
    best: Annotated[
        str | None, typer.Option(help="Which epoch is kept as best: an expression of its figures [default: val_miou].")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="timm's name of a backbone, or smp:unet, smp:fpn, … (with --encoder) [default: resnet50]."),
    ] = None,
    encoder: Annotated[str | None, typer.Option(help="timm's name of the backbone of an smp: model.")] = None,
    head_channels: Annotated[int | None, typer.Option(help="Width of the DAFormer head [default: 256].")] = None,
    out: OutOption = None,
    weights: SegmentWeightsOption = None,
    weights_match: SegmentMatchOption = None,
    pretrained: PretrainedOption = None,
    epochs: Annotated[int | None, typer.Option(help="[default: 10]")] = None,
    iterations: IterationsOption = None,
    interval: Annotated[
        int | None, typer.Option(help="Steps between two validations [default: a tenth of --iterations].")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images a batch and process [default: 8].")] = None,
    size: CropSideOption = None,
    eval_size: EvalSizeOption = None,
    optimizer: Annotated[str | None, typer.Option(help="See train --list-optimizers [default: adamw].")] = None,
    lr: SegmentLrOption = None,
    weight_decay: Annotated[float | None, typer.Option(help="[default: 0.01]")] = None,
    schedule: Annotated[str | None, typer.Option(help="As for train [default: poly of power 1].")] = None,
    warmup_epochs: Annotated[float | None, typer.Option(help="[default: 1]")] = None,
    warmup_iterations: Annotated[int | None, typer.Option(help="The same in steps, with --iterations.")] = None,
    rare_classes: Annotated[
        float | None, typer.Option(help="Temperature of rare class sampling (DAFormer: 0.01) [default: off].")
    ] = None,
    policy: Annotated[str | None, typer.Option(help="Augmentation, in timm's words.")] = None,
    ema: EmaOption = None,
    amp: PrecisionOption = None,
    device: DeviceOption = None,
    threads: ThreadsOption = None,
    seed: SeedOption = None,
    config: SegmentConfigOption = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Any other setting: --set loss.dice=1.")] = None,
    resume: ResumeOption = False,
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
    values = settings_values(given, config, set_, {"data": ("say what to train on", "--data")})

    from fasttrain.base.config import load_settings
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
    from fasttrain.base.config import load_settings
    from fasttrain.inference.segmentation.scores import ViewSettings

    values = {"mode": mode, "crop": crop, "stride": stride, "scales": factors_of(scales), "hflip": hflip}
    return load_settings(ViewSettings, values, "views")


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
