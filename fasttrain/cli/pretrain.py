"""Commands about learning without labels: pretrain, probe."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from fasttrain.base.config import apply_overrides, load_settings, read_config
from fasttrain.cli.models import (
    AmpOption,
    BackendOption,
    BatchOption,
    DeviceOption,
    IdsOption,
    IndexOption,
    ModelOption,
    OnErrorOption,
    SizeOption,
    ThreadsOption,
    Weights,
    given_options,
    ids_of,
    merge,
    one_or_many,
)
from fasttrain.cli.output import JsonOption, finish


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command("pretrain")(pretrain)
    app.command("probe")(probe)


def pretrain(
    sources: Annotated[list[str] | None, typer.Argument(metavar="[DATA]...", help="What to train on.")] = None,
    data: Annotated[list[str] | None, typer.Option(help="The same, as an option.")] = None,
    ids: Annotated[str | None, typer.Option(help="Train on these samples only: a file of ids, one a line.")] = None,
    method: Annotated[Literal["moco", "mocov2", "mae"] | None, typer.Option(help="MoCo v2 or MAE.")] = None,
    model: Annotated[
        str | None, typer.Option(help="timm's name [default: resnet50, for mae vit_base_patch16_224].")
    ] = None,
    out: Annotated[str | None, typer.Option(help="The run's folder [default: runs/pretrain].")] = None,
    weights: Annotated[str | None, typer.Option(help="Start from these weights (safetensors, .pth).")] = None,
    pretrained: Annotated[bool | None, typer.Option("--pretrained", help="Start from timm's weights (hub).")] = None,
    epochs: Annotated[int | None, typer.Option(help="[default: 200, for mae 800]")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images a batch and process [default: 256].")] = None,
    size: Annotated[int | None, typer.Option(help="Image side in pixels [default: the model's own].")] = None,
    optimizer: Annotated[str | None, typer.Option(help="[default: sgd, for mae adamw]")] = None,
    lr: Annotated[
        float | None,
        typer.Option(help="Peak rate [default: 0.03, for mae 1.5e-4 for each 256 images of a step]."),
    ] = None,
    weight_decay: Annotated[float | None, typer.Option(help="[default: 1e-4, for mae 0.05]")] = None,
    warmup_epochs: Annotated[
        float | None, typer.Option(help="[default: 0, for mae 40, but at most a twentieth of the run]")
    ] = None,
    queue: Annotated[int | None, typer.Option(help="Keys of moco's queue [default: 65536, or what suits].")] = None,
    mask_ratio: Annotated[float | None, typer.Option(help="Share of patches that mae hides [default: 0.75].")] = None,
    ema: Annotated[float | None, typer.Option(help="Decay of the weights' moving average [default: 0, off].")] = None,
    amp: Annotated[str | None, typer.Option(help="auto, off, bf16 or fp16 [default: auto].")] = None,
    device: DeviceOption = None,
    threads: ThreadsOption = None,
    memory_budget: Annotated[str | None, typer.Option(help="Memory for images, as of train.")] = None,
    resident: Annotated[
        Literal["gpu"] | None, typer.Option(help="Keep all training images, decoded, in the GPU's memory.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="[default: 0]")] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file of settings, or a recipe's name; options win.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Any other setting: --set moco.dim=64.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    json: JsonOption = False,
) -> None:
    """Train an encoder without labels; `fasttrain train --weights` goes on from it."""
    given: dict[str, Any] = {
        "data": one_or_many([*(sources or ()), *(data or ())]),
        "ids": ids,
        "method": method,
        "model": model,
        "out": out,
        "weights": weights,
        "pretrained": pretrained,
        "epochs": epochs,
        "batch_size": batch_size,
        "size": size,
        "ema": ema,
        "amp": amp,
        "device": device,
        "threads": threads,
        "memory_budget": memory_budget,
        "resident": resident,
        "seed": seed,
        "optimizer": given_options({"name": optimizer, "lr": lr, "weight_decay": weight_decay}) or None,
        "schedule": given_options({"warmup_epochs": warmup_epochs}) or None,
        "moco": given_options({"queue": queue}) or None,
        "mae": given_options({"mask_ratio": mask_ratio}) or None,
    }
    values = merge(read_config(config) if config else {}, given_options(given))
    values = apply_overrides(values, set_ or [])
    if "data" not in values:
        raise typer.BadParameter("say what to train on", param_hint="DATA")
    if "method" not in values:
        raise typer.BadParameter("say how: moco or mae", param_hint="--method")

    from fasttrain.training.pretraining.run import pretrain as run_pretraining
    from fasttrain.training.pretraining.settings import PretrainSettings

    result = run_pretraining(load_settings(PretrainSettings, values, "pretrain"), resume=resume)
    finish(dict(result.__dict__), json)


def probe(
    weights: Weights,
    train: Annotated[Path, typer.Argument(help="Labelled data whose features are known.")],
    val: Annotated[Path, typer.Argument(help="Labelled data whose classes are to be told by them.")],
    knn: Annotated[bool, typer.Option("--knn", help="By nearest neighbours alone.")] = False,
    linear: Annotated[bool, typer.Option("--linear", help="By a linear classifier alone.")] = False,
    model: ModelOption = None,
    k: Annotated[int, typer.Option(help="Neighbours.", min=1)] = 20,
    temperature: Annotated[float, typer.Option(help="Of the neighbours' weights, exp(cosine / T).", min=1e-3)] = 0.07,
    l2: Annotated[float, typer.Option(help="Penalty on the squared weights of the linear classifier.", min=0)] = 1e-3,
    ids: IdsOption = None,
    size: SizeOption = None,
    batch_size: BatchOption = 64,
    device: DeviceOption = None,
    amp: AmpOption = "auto",
    threads: ThreadsOption = None,
    backend: BackendOption = "auto",
    index: IndexOption = True,
    on_error: OnErrorOption = "raise",
    json: JsonOption = False,
) -> None:
    """Measure a frozen encoder: its features' nearest neighbours, and a linear classifier on them (both by default)."""
    from fasttrain.base.distributed import process_group
    from fasttrain.inference.forward import resolve_amp
    from fasttrain.inference.probe import probe as run_probe
    from fasttrain.models.encoder import open_encoder

    with process_group(device) as chosen:
        encoder = open_encoder(weights, model=model, size=size, device=chosen)
        result = run_probe(
            encoder,
            train,
            val,
            knn=knn or not linear,
            linear=linear or not knn,
            k=k,
            temperature=temperature,
            l2=l2,
            batch_size=batch_size,
            device=chosen,
            amp=resolve_amp(amp, chosen),
            ids=ids_of(ids),
            threads=threads,
            backend=backend,
            index=index,
            on_error=on_error,
        )
    finish(result, json)
