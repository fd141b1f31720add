"""`segment adapt`: masks of images that nobody has labelled, learned from labelled ones of another kind."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from fasttrain.base.config import apply_overrides, load_settings, read_config
from fasttrain.cli.models import DeviceOption, ThreadsOption, given_options, merge, one_or_many
from fasttrain.cli.output import JsonOption, finish


def adapt(
    data: Annotated[list[str] | None, typer.Option(help="The source: a .beton with masks; several times.")] = None,
    target: Annotated[
        list[str] | None, typer.Option(help="The target: images without labels; may be given several times.")
    ] = None,
    val: Annotated[list[str] | None, typer.Option(help="What to validate on, with masks.")] = None,
    model: Annotated[
        str | None, typer.Option(help="timm's name of a backbone, or smp:unet, … [default: resnet50].")
    ] = None,
    out: Annotated[str | None, typer.Option(help="The run's folder [default: runs/train].")] = None,
    weights: Annotated[
        str | None, typer.Option(help="Start from a classifier's weights (the backbone), or a segmentation checkpoint.")
    ] = None,
    weights_match: Annotated[
        Literal["name", "order"] | None, typer.Option(help="Join a classifier's weights by name [default] or by order.")
    ] = None,
    pretrained: Annotated[bool | None, typer.Option("--pretrained", help="Start from timm's weights (hub).")] = None,
    epochs: Annotated[int | None, typer.Option(help="Of the source [default: 10].")] = None,
    iterations: Annotated[int | None, typer.Option(help="Length in steps, instead of --epochs.")] = None,
    interval: Annotated[
        int | None, typer.Option(help="Steps between two lines of figures [default: a tenth of --iterations].")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Images of the source, and as many of the target, a process [default: 8].")
    ] = None,
    size: Annotated[int | None, typer.Option(help="Side of the training crops in pixels [default: 512].")] = None,
    eval_size: Annotated[
        int | None, typer.Option(help="Pixels of the shorter side in evaluation [default: 0, the images' own].")
    ] = None,
    lr: Annotated[
        float | None, typer.Option(help="Peak learning rate; the head's is 10 times that [default: 6e-5].")
    ] = None,
    alpha: Annotated[
        float | None, typer.Option(help="Share of the teacher's weights that a step keeps [default: 0.999].")
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(help="Probability from which a pseudo-label is confident [default: 0.968].")
    ] = None,
    keep: Annotated[
        Literal["student", "teacher"] | None,
        typer.Option(help="Whose weights are measured and kept as the run's [default: student]."),
    ] = None,
    amp: Annotated[str | None, typer.Option(help="auto, off, bf16 or fp16 [default: auto].")] = None,
    device: DeviceOption = None,
    threads: ThreadsOption = None,
    seed: Annotated[int | None, typer.Option(help="[default: 0]")] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file of settings; options win.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Any other setting: --set adaptation.feature_distance.weight=0.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    json: JsonOption = False,
) -> None:
    """Adapt a segmentation model to a target without labels (DACS, DAFormer); torchrun for several processes."""
    given: dict[str, Any] = {
        "data": one_or_many(data),
        "target": one_or_many(target),
        "val": one_or_many(val),
        "model": model,
        "out": out,
        "weights": weights,
        "weights_match": weights_match,
        "pretrained": pretrained,
        "epochs": epochs,
        "iterations": iterations,
        "interval": interval,
        "batch_size": batch_size,
        "size": size,
        "eval_size": eval_size,
        "amp": amp,
        "device": device,
        "threads": threads,
        "seed": seed,
        "optimizer": {"lr": lr} if lr is not None else None,
        "adaptation": given_options({"alpha": alpha, "threshold": threshold, "keep": keep}) or None,
    }
    values = merge(read_config(config) if config else {}, given_options(given))
    values = apply_overrides(values, set_ or [])
    for name, what in {"data": "which images with masks to learn from", "target": "which images to adapt to"}.items():
        if name not in values:
            raise typer.BadParameter(f"say {what}", param_hint=f"--{name}")

    from fasttrain.training.adaptation.task import AdaptSettings
    from fasttrain.training.segmentation.run import train_segmenter

    result = train_segmenter(load_settings(AdaptSettings, values, "segment adapt"), resume=resume)
    finish(dict(result.__dict__), json)
