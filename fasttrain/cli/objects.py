"""Commands that find the objects of images without labels of pixels: the group ``objects``."""

from pathlib import Path
from typing import Annotated, Any, Literal

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
from fasttrain.cli.training_options import (
    EmaOption,
    PrecisionOption,
    PretrainedOption,
    ResidentOption,
    ResumeOption,
    SeedOption,
    SegmentConfigOption,
    TrainIdsOption,
    factors_of,
    given_options,
    one_or_many,
    settings_values,
)

objects = typer.Typer(no_args_is_help=True, help="Masks of objects, learned without masks.")


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.add_typer(objects, name="objects")


@objects.callback()
def _group() -> None:
    """Masks of objects, learned without masks."""


@objects.command("train")
def train(
    data: Annotated[list[str] | None, typer.Option(help="What to train on; may be given several times.")] = None,
    ids: TrainIdsOption = None,
    model: Annotated[str | None, typer.Option(help="timm's name of the backbone [default: resnet50].")] = None,
    weights: Annotated[
        str | None, typer.Option(help="Start from a classifier's weights (the backbone), or another mapper's.")
    ] = None,
    weights_match: Annotated[
        Literal["name", "order"] | None,
        typer.Option(help="Join a classifier's weights by name [default] or by order."),
    ] = None,
    pretrained: PretrainedOption = None,
    out: Annotated[str | None, typer.Option(help="The run's folder [default: runs/objects].")] = None,
    epochs: Annotated[int | None, typer.Option(help="[default: 10]")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images a batch and process [default: 32].")] = None,
    size: Annotated[int | None, typer.Option(help="Side of the training crops in pixels [default: 448].")] = None,
    stride: Annotated[
        int | None, typer.Option(help="Pixels that a place of the map stands for: 8, 16 or 32 [default: 16].")
    ] = None,
    lr: Annotated[
        float | None, typer.Option(help="Peak learning rate; the head's is 10 times that [default: 1e-3].")
    ] = None,
    ema: EmaOption = None,
    amp: PrecisionOption = None,
    device: DeviceOption = None,
    threads: ThreadsOption = None,
    memory_budget: Annotated[str | None, typer.Option(help="Memory for images, as of train.")] = None,
    resident: ResidentOption = None,
    seed: SeedOption = None,
    config: SegmentConfigOption = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Any other setting: --set contrast.area=0.2.")] = None,
    resume: ResumeOption = False,
    json: JsonOption = False,
) -> None:
    """Learn to tell objects from background without labels (C2AM); torchrun for several processes."""
    given: dict[str, Any] = {
        "data": one_or_many(data),
        "ids": ids,
        "model": model,
        "weights": weights,
        "weights_match": weights_match,
        "pretrained": pretrained,
        "out": out,
        "epochs": epochs,
        "batch_size": batch_size,
        "size": size,
        "stride": stride,
        "ema": ema,
        "amp": amp,
        "device": device,
        "threads": threads,
        "memory_budget": memory_budget,
        "resident": resident,
        "seed": seed,
        "optimizer": {"lr": lr} if lr is not None else None,
    }
    values = settings_values(given, config, set_, {"data": ("say what to train on", "--data")})

    from fasttrain.base.config import load_settings
    from fasttrain.training.objects.run import train_mapper
    from fasttrain.training.objects.settings import ObjectSettings

    result = train_mapper(load_settings(ObjectSettings, values, "objects train"), resume=resume)
    finish(dict(result.__dict__), json)


@objects.command("masks")
def masks(
    weights: Annotated[Path, typer.Argument(help="A checkpoint of objects train, or a run's folder.")],
    data: Annotated[Path, typer.Argument(help="A .beton file, a folder of images, or a list.")],
    out: Annotated[Path, typer.Option(help="Folder for the masks: a PNG of 0 and 1 each, named like the image.")],
    threshold: Annotated[
        float | None,
        typer.Option(help="Objects are where the map, divided by its maximum, is above it [default: 0.55]."),
    ] = None,
    scales: Annotated[
        str | None, typer.Option(help="Factors of the images' size that are added up [default: 0.5,1,1.5,2].")
    ] = None,
    hflip: Annotated[bool | None, typer.Option("--hflip/--no-hflip", help="Add mirror images, too [default].")] = None,
    crf: Annotated[
        Literal["on", "off"] | None, typer.Option(help="Draw masks to the photos' edges by a dense CRF [default: on].")
    ] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Any other setting: --set crf.iterations=10.")] = None,
    maps: Annotated[Path | None, typer.Option(help="Folder for the maps themselves, as grey PNGs.")] = None,
    pictures: Annotated[int, typer.Option(help="Photos to show under their masks in OUT_pictures.png.", min=0)] = 0,
    size: Annotated[
        int | None,
        typer.Option(help="Pixels of the images' shorter side, instead of the stored one; 0 for their own.", min=0),
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Images a batch and process.", min=1)] = 8,
    device: DeviceOption = None,
    amp: AmpOption = "auto",
    threads: ThreadsOption = None,
    backend: BackendOption = "auto",
    on_error: OnErrorOption = "raise",
    ids: IdsOption = None,
    json: JsonOption = False,
) -> None:
    """Write a mask of the objects of every image; goes on where it was interrupted."""
    from fasttrain.base.config import apply_overrides, load_settings
    from fasttrain.base.distributed import process_group
    from fasttrain.inference.forward import resolve_amp
    from fasttrain.inference.objects.masks import write_object_masks
    from fasttrain.inference.objects.settings import ObjectMaskSettings
    from fasttrain.models.objects.opened import open_mapper

    values = given_options({"threshold": threshold, "scales": scales and factors_of(scales), "hflip": hflip})
    if crf == "off":
        values["crf"] = None
    how = load_settings(ObjectMaskSettings, apply_overrides(values, set_ or []), "masks")
    with process_group(device) as chosen:
        result = write_object_masks(
            open_mapper(weights, size=size, device=chosen),
            data,
            out,
            how,
            maps=maps,
            pictures=pictures,
            batch_size=batch_size,
            device=chosen,
            amp=resolve_amp(amp, chosen),
            ids=ids_of(ids),
            threads=threads,
            backend=backend,
            on_error=on_error,
        )
    finish(result, json)
