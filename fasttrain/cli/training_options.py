"""What the commands that train have in common: options, and the way from options to settings."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

ValOption = Annotated[list[str] | None, typer.Option(help="What to validate on after each epoch.")]
TrainIdsOption = Annotated[
    str | None, typer.Option("--ids", help="Train on these samples only: a file of ids, one a line.")
]
ValIdsOption = Annotated[str | None, typer.Option(help="The same for --val.")]
ExtraValOption = Annotated[
    list[str] | None, typer.Option(help="Further validation data by name: snow=snow.beton; may be given again.")
]
OutOption = Annotated[str | None, typer.Option(help="The run's folder [default: runs/train].")]
WeightsOption = Annotated[str | None, typer.Option(help="Start from these weights (safetensors, .pth).")]
PretrainedOption = Annotated[bool | None, typer.Option("--pretrained", help="Start from timm's weights (hub).")]
ImageSideOption = Annotated[int | None, typer.Option(help="Image side in pixels [default: the model's own].")]
EmaOption = Annotated[float | None, typer.Option(help="Decay of the weights' moving average [default: 0, off].")]
PrecisionOption = Annotated[str | None, typer.Option("--amp", help="auto, off, bf16 or fp16 [default: auto].")]
ResidentOption = Annotated[
    Literal["gpu"] | None, typer.Option(help="Keep all training images, decoded, in the GPU's memory.")
]
SeedOption = Annotated[int | None, typer.Option(help="[default: 0]")]
ConfigOption = Annotated[
    Path | None, typer.Option("--config", help="YAML file of settings, or a recipe's name; options win.")
]
ResumeOption = Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")]

# Of segmentation.
SegmentWeightsOption = Annotated[
    str | None,
    typer.Option("--weights", help="Start from a classifier's weights (the backbone), or a segmentation checkpoint."),
]
SegmentMatchOption = Annotated[
    Literal["name", "order"] | None,
    typer.Option("--weights-match", help="Join a classifier's weights by name [default] or by order."),
]
IterationsOption = Annotated[int | None, typer.Option(help="Length in steps, instead of --epochs.")]
CropSideOption = Annotated[
    int | None, typer.Option("--size", help="Side of the training crops in pixels [default: 512].")
]
EvalSizeOption = Annotated[
    int | None, typer.Option(help="Pixels of the shorter side in evaluation [default: 0, the images' own].")
]
SegmentLrOption = Annotated[
    float | None, typer.Option("--lr", help="Peak learning rate; the head's is 10 times that [default: 6e-5].")
]
SegmentConfigOption = Annotated[Path | None, typer.Option("--config", help="YAML file of settings; options win.")]


def settings_values(
    given: dict[str, Any], config: Path | None, overrides: list[str] | None, needed: Mapping[str, tuple[str, str]]
) -> dict[str, Any]:
    """The settings of a run as they were told: a file's, over them the options, over all ``--set``.

    Args:
        given: options by the names of settings; what is None was not given.
        needed: of settings that have to be there, what to say where they are not, and the parameter to name.

    Raises:
        typer.BadParameter: one is not there.
    """
    # Here, because every command would wait for the library of settings, whether it has any or not.
    from fasttrain.base.config import apply_overrides, read_config

    values = merge(read_config(config) if config else {}, given_options(given))
    values = apply_overrides(values, overrides or [])
    for name, (told, parameter) in needed.items():
        if name not in values:
            raise typer.BadParameter(told, param_hint=parameter)
    return values


def given_options(options: dict[str, Any]) -> dict[str, Any]:
    """Those options that are not None."""
    return {name: value for name, value in options.items() if value is not None}


def named_pairs(pairs: list[str] | None) -> dict[str, str] | None:
    """``NAME=DATA`` of several data sets."""
    if not pairs:
        return None
    split = [pair.partition("=") for pair in pairs]
    for pair, (name, _, data) in zip(pairs, split, strict=True):
        if not name or not data:
            raise typer.BadParameter(f"{pair!r} is not of the form NAME=DATA", param_hint="--extra-val")
    return {name: data for name, _, data in split}


def one_or_many(values: list[str] | None) -> str | list[str] | None:
    """An option that may be given several times; one value as it is."""
    return values[0] if values and len(values) == 1 else values or None


def factors_of(scales: str) -> list[float]:
    """The factors of ``--scales``."""
    try:
        return [float(part) for part in scales.split(",")]
    except ValueError:
        raise typer.BadParameter(f"{scales!r} is no list such as 0.75,1,1.25", param_hint="--scales") from None


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`base` with the values of `over` put in, group by group."""
    merged = dict(base)
    for key, value in over.items():
        both_groups = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both_groups else value
    return merged
