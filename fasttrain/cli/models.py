"""Commands that run models: train, evaluate, predict."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from fasttrain.cli.output import JsonOption, finish
from fasttrain.cli.training_options import (
    ConfigOption,
    EmaOption,
    ExtraValOption,
    ImageSideOption,
    OutOption,
    PrecisionOption,
    PretrainedOption,
    ResidentOption,
    ResumeOption,
    SeedOption,
    TrainIdsOption,
    ValIdsOption,
    ValOption,
    WeightsOption,
    given_options,
    named_pairs,
    one_or_many,
    settings_values,
)

if TYPE_CHECKING:
    import torch

    from fasttrain.models.opened import OpenedModel

Weights = Annotated[Path, typer.Argument(help="A checkpoint, a run's folder, or bare weights (then --model).")]
Data = Annotated[Path, typer.Argument(help="A .beton file, a folder of images, or a list.")]
ModelOption = Annotated[str | None, typer.Option("--model", help="timm's name of the model of bare weights.")]
MatchOption = Annotated[
    Literal["name", "order"],
    typer.Option("--weights-match", help="Join bare weights by tensor name, or by order where only the names differ."),
]
SizeOption = Annotated[int | None, typer.Option(help="Image side in pixels, instead of the stored one.", min=1)]
BatchOption = Annotated[int, typer.Option(help="Images a batch and process.", min=1)]
DeviceOption = Annotated[str | None, typer.Option(help="cpu, cuda or cuda:N (default: the best there is).")]
AmpOption = Annotated[Literal["auto", "off", "bf16", "fp16"], typer.Option(help="auto: bf16 on CUDA, off on CPU.")]
ThreadsOption = Annotated[int | None, typer.Option(help="Decoding threads (default: the cores there are).", min=1)]
IdsOption = Annotated[
    Path | None, typer.Option(help="Only these samples: a file of ids, one a line, or a table with an id column.")
]
BackendOption = Annotated[
    str,
    typer.Option(
        help="What decodes: native, portable (Pillow, the reference), dali, ffcv, or auto: native or portable."
    ),
]
IndexOption = Annotated[
    bool, typer.Option("--index/--no-index", help="Use the JPEGs' random-access index where they have one.")
]
OnErrorOption = Annotated[Literal["raise", "skip"], typer.Option(help="What a broken image does.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command("train")(train)
    app.command("evaluate")(evaluate)
    app.command("predict")(predict)
    app.command("export")(export)


def train(
    data: Annotated[list[str] | None, typer.Option(help="What to train on; may be given several times.")] = None,
    val: ValOption = None,
    ids: TrainIdsOption = None,
    val_ids: ValIdsOption = None,
    model: Annotated[str | None, typer.Option(help="timm's name of the model [default: resnet50].")] = None,
    out: OutOption = None,
    weights: WeightsOption = None,
    weights_match: Annotated[
        Literal["name", "order"] | None, typer.Option(help="Join the weights by name [default] or by order.")
    ] = None,
    pretrained: PretrainedOption = None,
    extra_val: ExtraValOption = None,
    best: Annotated[
        str | None, typer.Option(help="Which epoch is kept as best: an expression of its figures [default: val_top1].")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="[default: 10]")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images a batch and process [default: 64].")] = None,
    size: ImageSideOption = None,
    optimizer: Annotated[str | None, typer.Option(help="See --list-optimizers [default: adamw].")] = None,
    lr: Annotated[
        float | None, typer.Option(help="Peak learning rate [default: the optimizer's; adamw 5e-4, sgd 0.02].")
    ] = None,
    weight_decay: Annotated[float | None, typer.Option(help="[default: the optimizer's; adamw 0.05, sgd 5e-5]")] = None,
    schedule: Annotated[
        str | None,
        typer.Option(
            help="cosine, linear, poly, onecycle, constant, step, milestones, plateau or 1x, 2x, … [default: cosine]."
        ),
    ] = None,
    warmup_epochs: Annotated[float | None, typer.Option(help="[default: 1]")] = None,
    class_balance: Annotated[
        float | None, typer.Option(help="Draw classes as frequent as they are (0) to all alike (1) [default: 0].")
    ] = None,
    label_smoothing: Annotated[float | None, typer.Option(help="[default: 0]")] = None,
    policy: Annotated[
        str | None,
        typer.Option(help="Augmentation, in timm's words: rand-m9-n2-mstd0.5-inc1, augmix-m3-w3, trivial, …"),
    ] = None,
    erasing: Annotated[
        float | None, typer.Option(help="Probability of erasing a part of an image [default: 0].")
    ] = None,
    mixup: Annotated[float | None, typer.Option(help="Alpha of mixup [default: 0, off].")] = None,
    cutmix: Annotated[float | None, typer.Option(help="Alpha of CutMix [default: 0, off].")] = None,
    ema: EmaOption = None,
    amp: PrecisionOption = None,
    device: DeviceOption = None,
    threads: ThreadsOption = None,
    memory_budget: Annotated[
        str | None,
        typer.Option(help="Memory for images, as 8GB, or auto: keep decoded what fits, else read in windows."),
    ] = None,
    resident: ResidentOption = None,
    index: Annotated[
        bool | None,
        typer.Option("--index/--no-index", help="Use the JPEGs' random-access index where they have one [default]."),
    ] = None,
    seed: SeedOption = None,
    config: ConfigOption = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Any other setting: --set augment.hflip=0.")] = None,
    resume: ResumeOption = False,
    list_models: Annotated[bool, typer.Option("--list-models", help="Name timm's models and end.")] = False,
    list_optimizers: Annotated[bool, typer.Option("--list-optimizers", help="Name the optimizers and end.")] = False,
    json: JsonOption = False,
) -> None:
    """Train a timm model; start it under torchrun for several processes."""
    if list_models or list_optimizers:
        _print_choices(list_models)
        return
    optimizer_group = {"name": optimizer, "lr": lr, "weight_decay": weight_decay}
    schedule_group = {"kind": schedule, "warmup_epochs": warmup_epochs}
    augment_group: dict[str, Any] = {"policy": policy, "mixup": mixup, "cutmix": cutmix}
    augment_group["erasing"] = {"prob": erasing} if erasing is not None else None
    given: dict[str, Any] = {
        "data": one_or_many(data),
        "val": one_or_many(val),
        "extra_val": named_pairs(extra_val),
        "best": best,
        "ids": ids,
        "val_ids": val_ids,
        "model": model,
        "out": out,
        "weights": weights,
        "weights_match": weights_match,
        "pretrained": pretrained,
        "epochs": epochs,
        "batch_size": batch_size,
        "size": size,
        "label_smoothing": label_smoothing,
        "ema": ema,
        "amp": amp,
        "device": device,
        "threads": threads,
        "memory_budget": memory_budget,
        "resident": resident,
        "index": index,
        "seed": seed,
        "optimizer": given_options(optimizer_group) or None,
        "sampling": {"class_balance": class_balance} if class_balance is not None else None,
        "schedule": given_options(schedule_group) or None,
        "augment": given_options(augment_group) or None,
    }
    values = settings_values(given, config, set_, {"data": ("say what to train on", "--data")})

    from fasttrain.base.config import load_settings
    from fasttrain.training.run import train as run_training
    from fasttrain.training.settings import TrainSettings

    result = run_training(load_settings(TrainSettings, values, "train"), resume=resume)
    finish(dict(result.__dict__), json)


def evaluate(
    weights: Weights,
    data: Data,
    model: ModelOption = None,
    weights_match: MatchOption = "name",
    size: SizeOption = None,
    batch_size: BatchOption = 64,
    device: DeviceOption = None,
    amp: AmpOption = "auto",
    threads: ThreadsOption = None,
    backend: BackendOption = "auto",
    index: IndexOption = True,
    on_error: OnErrorOption = "raise",
    ids: IdsOption = None,
    per_class: Annotated[bool, typer.Option("--per-class", help="Tell of each class: samples, accuracy, F1.")] = False,
    json: JsonOption = False,
) -> None:
    """Measure a model: each sample exactly once, over all processes."""
    from fasttrain.base.console import print_table
    from fasttrain.base.distributed import process_group, require_agreement
    from fasttrain.base.errors import FasttrainError
    from fasttrain.inference.evaluate import evaluate as run_evaluation
    from fasttrain.inference.forward import resolve_amp
    from fasttrain.inference.skipped import report_skipped
    from fasttrain.loading.loader import Loader

    with process_group(device) as chosen:
        opened = _open(weights, model, weights_match, size, chosen)
        how: dict[str, Any] = {"threads": threads, "backend": backend, "index": index, "on_error": on_error}
        with Loader(data, batch_size, view=opened.view, indices=ids_of(ids), device=chosen, **how) as loader:
            require_agreement({"data set": loader.dataset.fingerprint, "checkpoint": opened.weights_hash})
            precision = resolve_amp(amp, chosen)
            result = run_evaluation(
                opened.module, loader, opened.num_classes, opened.class_names, precision, classes=per_class
            )
            skipped = report_skipped(loader.skipped)
    if not result["samples"]:
        raise FasttrainError(
            f"{data} holds no labelled sample, so there is nothing to measure; use `fasttrain predict`"
        )
    finish({**result, "skipped": skipped} if skipped else result, json, hide=("per_class",))
    if per_class and not json:
        columns = ["class", "samples", "predicted", "accuracy", "f1"]
        cells = [[_shown(entry[column]) for column in columns] for entry in result["per_class"]]
        print_table("classes", columns, cells)


def predict(
    weights: Weights,
    data: Data,
    out: Annotated[Path, typer.Option(help="The score table to write (.arrow).")],
    model: ModelOption = None,
    weights_match: MatchOption = "name",
    tta: Annotated[
        Literal["none", "hflip", "fivecrop", "tencrop", "multiscale", "shift"],
        typer.Option(help="Test-time views whose logits are averaged."),
    ] = "none",
    size: SizeOption = None,
    batch_size: BatchOption = 64,
    device: DeviceOption = None,
    amp: AmpOption = "auto",
    threads: ThreadsOption = None,
    backend: BackendOption = "auto",
    index: IndexOption = True,
    on_error: OnErrorOption = "raise",
    ids: IdsOption = None,
    json: JsonOption = False,
) -> None:
    """Write a model's logits for every sample of a data set as a score table."""
    from fasttrain.base.distributed import process_group
    from fasttrain.inference.forward import resolve_amp
    from fasttrain.inference.predict import predict as run_prediction

    with process_group(device) as chosen:
        opened = _open(weights, model, weights_match, size, chosen)
        result = run_prediction(
            opened,
            data,
            out,
            tta=tta,
            batch_size=batch_size,
            device=chosen,
            amp=resolve_amp(amp, chosen),
            threads=threads,
            backend=backend,
            index=index,
            on_error=on_error,
            ids=ids_of(ids),
        )
    finish(result, json)


def export(
    weights: Weights,
    out: Annotated[Path, typer.Argument(help="What to write: .onnx, .pt2 (ExportedProgram) or .ts (TorchScript).")],
    model: ModelOption = None,
    weights_match: MatchOption = "name",
    size: SizeOption = None,
    inputs: Annotated[
        Literal["normalised", "uint8"], typer.Option(help="What it takes: float32 as the eval view, or RGB bytes.")
    ] = "normalised",
    json: JsonOption = False,
) -> None:
    """Write a model for other programs, with its eval view and class names."""
    import torch

    from fasttrain.models.export import export_model

    finish(export_model(_open(weights, model, weights_match, size, torch.device("cpu")), out, inputs), json)


def _shown(value: Any) -> str:
    return "-" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)


def ids_of(path: Path | None) -> list[str] | None:
    """The ids in a file; None without one."""
    from fasttrain.beton_build.lists import read_ids

    return None if path is None else read_ids(path)


def _open(
    weights: Path, model: str | None, match: Literal["name", "order"], size: int | None, device: "torch.device"
) -> "OpenedModel":
    from fasttrain.models.encoder import require_classifier
    from fasttrain.models.opened import open_model

    return require_classifier(open_model(weights, model=model, match=match, size=size, device=device), weights)


def _print_choices(models: bool) -> None:
    if models:
        from fasttrain.models.create import list_models

        print("\n".join(list_models()))
        return
    from fasttrain.training.optimizers import list_optimizers

    for name, description in list_optimizers().items():
        print(f"{name:20} {description}")
