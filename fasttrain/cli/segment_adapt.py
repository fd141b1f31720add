"""`segment adapt`: masks of images that nobody has labelled, learned from labelled ones of another kind."""

from typing import Annotated, Any, Literal

import typer

from fasttrain.cli.models import DeviceOption, ThreadsOption
from fasttrain.cli.output import JsonOption, finish
from fasttrain.cli.training_options import (
    CropSideOption,
    EvalSizeOption,
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
    given_options,
    one_or_many,
    settings_values,
)


def adapt(
    data: Annotated[list[str] | None, typer.Option(help="The source: a .beton with masks; several times.")] = None,
    target: Annotated[
        list[str] | None, typer.Option(help="The target: images without labels; may be given several times.")
    ] = None,
    val: Annotated[list[str] | None, typer.Option(help="What to validate on, with masks.")] = None,
    model: Annotated[
        str | None, typer.Option(help="timm's name of a backbone, or smp:unet, … [default: resnet50].")
    ] = None,
    out: OutOption = None,
    weights: SegmentWeightsOption = None,
    weights_match: SegmentMatchOption = None,
    pretrained: PretrainedOption = None,
    epochs: Annotated[int | None, typer.Option(help="Of the source [default: 10].")] = None,
    iterations: IterationsOption = None,
    interval: Annotated[
        int | None, typer.Option(help="Steps between two lines of figures [default: a tenth of --iterations].")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Images of the source, and as many of the target, a process [default: 8].")
    ] = None,
    size: CropSideOption = None,
    eval_size: EvalSizeOption = None,
    lr: SegmentLrOption = None,
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
    amp: PrecisionOption = None,
    device: DeviceOption = None,
    threads: ThreadsOption = None,
    seed: SeedOption = None,
    config: SegmentConfigOption = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Any other setting: --set adaptation.feature_distance.weight=0.")
    ] = None,
    resume: ResumeOption = False,
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
    needed = {
        "data": ("say which images with masks to learn from", "--data"),
        "target": ("say which images to adapt to", "--target"),
    }
    values = settings_values(given, config, set_, needed)

    from fasttrain.base.config import load_settings
    from fasttrain.training.adaptation.task import AdaptSettings
    from fasttrain.training.segmentation.run import train_segmenter

    result = train_segmenter(load_settings(AdaptSettings, values, "segment adapt"), resume=resume)
    finish(dict(result.__dict__), json)
