"""Commands about learning without labels: pretrain, probe."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

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
    ids_of,
)
from fasttrain.cli.output import JsonOption, finish
from fasttrain.cli.training_options import (
    ConfigOption,
    EmaOption,
    ImageSideOption,
    PrecisionOption,
    PretrainedOption,
    ResidentOption,
    ResumeOption,
    SeedOption,
    TrainIdsOption,
    WeightsOption,
    given_options,
    one_or_many,
    settings_values,
)


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command("pretrain")(pretrain)
    app.command("probe")(probe)


def pretrain(
    sources: Annotated[list[str] | None, typer.Argument(metavar="[DATA]...", help="What to train on.")] = None,
    data: Annotated[list[str] | None, typer.Option(help="The same, as an option.")] = None,
    ids: TrainIdsOption = None,
    method: Annotated[Literal["moco", "mocov2", "mae"] | None, typer.Option(help="MoCo v2 or MAE.")] = None,
    model: Annotated[
        str | None, typer.Option(help="timm's name [default: resnet50, for mae vit_base_patch16_224].")
    ] = None,
    out: Annotated[str | None, typer.Option(help="The run's folder [default: runs/pretrain].")] = None,
    weights: WeightsOption = None,
    pretrained: PretrainedOption = None,
    epochs: Annotated[int | None, typer.Option(help="[default: 200, for mae 800]")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images a batch and process [default: 256].")] = None,
    size: ImageSideOption = None,
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
    ema: EmaOption = None,
    amp: PrecisionOption = None,
    device: DeviceOption = None,
    threads: ThreadsOption = None,
    memory_budget: Annotated[str | None, typer.Option(help="Memory for images, as of train.")] = None,
    resident: ResidentOption = None,
    seed: SeedOption = None,
    config: ConfigOption = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Any other setting: --set moco.dim=64.")] = None,
    resume: ResumeOption = False,
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
    needed = {"data": ("say what to train on", "DATA"), "method": ("say how: moco or mae", "--method")}
    values = settings_values(given, config, set_, needed)

    from fasttrain.base.config import load_settings
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
