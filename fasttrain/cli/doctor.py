"""`doctor`: what is installed, and what a training waits for."""

from typing import Annotated, Any, Literal

import typer

from fasttrain.cli.output import JsonOption


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("doctor")(doctor)


def doctor(
    data: Annotated[
        list[str] | None, typer.Argument(metavar="[DATA]", help="What is to be trained on, as for `train --data`.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="timm's name of the model.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images a batch.")] = 64,
    size: Annotated[int | None, typer.Option(min=1, help="Image side in pixels [default: the model's own].")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda or cuda:N [default: the best there is].")] = None,
    amp: Annotated[Literal["auto", "off", "bf16", "fp16"], typer.Option(help="Precision of the step.")] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="Decoding threads [default: the cores there are].")] = None,
    seconds: Annotated[float, typer.Option(min=0, help="For each of the four runs.")] = 5.0,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Any setting of `train`: --set backend=dali.")] = None,
    json: JsonOption = False,
) -> None:
    """Without DATA: what is installed, and the commands that bring the rest. With it: is my loader the bottleneck?"""
    from fasttrain.base.console import emit_json

    if not data:
        if model is not None:
            raise typer.BadParameter("say what to train it on", param_hint="DATA")
        from fasttrain.tools.doctor.installed import examine

        facts = examine()
        if json:
            emit_json(facts)
        else:
            _print_facts(facts)
        return
    if model is None:
        raise typer.BadParameter("say which model is to be trained", param_hint="--model")
    from fasttrain.base.config import apply_overrides, load_settings
    from fasttrain.tools.doctor.bottleneck import find_bottleneck
    from fasttrain.training.settings import TrainSettings

    given: dict[str, Any] = {
        "data": data[0] if len(data) == 1 else data,
        "model": model,
        "batch_size": batch_size,
        "size": size,
        "device": device,
        "amp": amp,
        "threads": threads,
    }
    result = find_bottleneck(load_settings(TrainSettings, apply_overrides(given, set_ or []), "doctor"), seconds)
    if json:
        emit_json(result)
        return
    print(f"{result['model']}, {result['size']} pixels, {result['batch_size']} a batch, {result['device']}:")
    labels = {
        "synthetic": "training, made-up images",
        "cached": "training, one real batch",
        "loader": f"loader alone ({result['backend']}, {result['threads']} threads)",
        "real": "training, real data",
    }
    for key, label in labels.items():
        print(f"  {label:34} {result['images_per_s'][key]:10,.1f} images/s")
    if result["indexed"]:
        print(f"  {result['indexed']:,} of {result['samples']:,} images are decoded by their random-access index")
    print(result["verdict"])


def _print_facts(facts: dict[str, Any]) -> None:
    print("versions: " + ", ".join(f"{name} {found or 'missing'}" for name, found in facts["versions"].items()))
    machine = facts["machine"]
    print(
        f"machine: {machine['processor']}, {machine['cores']} cores for this process, {machine['memory_gib']} GiB, "
        f"{machine['system']}"
    )
    gpus = [f"{gpu['name']} ({gpu['memory_gib']} GiB, {gpu['capability']})" for gpu in facts["gpus"]]
    print("GPUs: " + (", ".join(gpus) or "none"))
    codecs = facts["codecs"]
    native = f"{codecs['native']} with {codecs['simd']}" if codecs["native"] else "not built"
    print(f"JPEG: native kernels {native}; Pillow {codecs['pillow']}")
    print(f"loader backends: {', '.join(facts['backends'])}")
    for part in facts["parts"]:
        state, found = "there" if part["present"] else "missing", f" ({part['found']})" if part["found"] else ""
        print(f"{part['name']}: {state}{found} – {part['purpose']}")
        if part["remedy"]:
            print(f"    {part['remedy']}")
