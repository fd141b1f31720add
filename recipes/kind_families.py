"""What many kinds of stages have in common: those that train, and those that run a model over a data set."""

from collections.abc import Callable

from fasttrain.recipes.kind import (
    CHECKPOINT,
    DATASET,
    FIGURES,
    IDS,
    IMAGES,
    LABELS,
    RESULT,
    RUN,
    TABLE,
    WEIGHTS,
    Body,
    Input,
    Kind,
    Output,
)


def given(*keys: str) -> Callable[[Body], bool]:
    """Whether a stage's body has any of these keys."""
    return lambda body: any(body.get(key) for key in keys)


DATASETS = (DATASET,)
DATA = (DATASET, IMAGES)
MODELS = (CHECKPOINT, WEIGHTS)
FIGURES_OUT = (Output("figures", FIGURES, RESULT),)
TABLE_OUT = (Output("table", TABLE, "table.arrow", "--out"),)
_CHECKPOINT = Output("checkpoint", CHECKPOINT, "run/last.safetensors")
_RUN = Output("run", RUN, "run")


def of_a_model(
    name: str,
    command: tuple[str, ...],
    outputs: tuple[Output, ...],
    models: tuple[str, ...] = MODELS,
    data: tuple[str, ...] = DATA,
    sees_target: bool = False,
    tells_classes: bool = True,
) -> Kind:
    """A kind that runs a model over a data set; `tells_classes`: what it writes has the model's classes."""
    return Kind(
        name,
        command,
        inputs=(
            Input("checkpoint", models, required=True, positional=True),
            Input("data", data, required=True, positional=True, sees_target=sees_target),
            Input("ids", (IDS, LABELS)),
        ),
        outputs=outputs,
        uses_gpu=True,
        torchrun=True,
        same_classes=("checkpoint",) if tells_classes else (),
        known_classes=(("data", "checkpoint"),) if tells_classes else (),
        work="samples",
        sized_by="data",
    )


def training(
    name: str,
    command: tuple[str, ...],
    inputs: tuple[Input, ...],
    outputs: tuple[Output, ...],
    same_classes: tuple[str, ...] = ("data",),
    known_classes: tuple[tuple[str, str], ...] = (("val", "data"),),
    work: str | None = "samples*epochs",
) -> Kind:
    """A kind that trains in a run's folder, and can be resumed there."""
    return Kind(
        name,
        command,
        inputs=inputs,
        outputs=(_CHECKPOINT, *outputs, _RUN),
        takes_settings=True,
        out_setting="run",
        resume="--resume",
        uses_gpu=True,
        torchrun=True,
        counts_processes=True,
        same_classes=same_classes,
        known_classes=known_classes,
        work=work,
        sized_by="data",
    )


def unlabelled(name: str, command: tuple[str, ...]) -> Kind:
    """A training that needs no labels, and whose model knows no classes."""
    return training(
        name,
        command,
        inputs=(
            Input("data", DATA, many=True, required=True),
            Input("ids", (IDS, LABELS)),
            Input("weights", MODELS),
        ),
        outputs=(),
        same_classes=(),
        known_classes=(),
    )


def best(*validation: str) -> Output:
    """Of a stage that validates on one of these inputs."""
    return Output("best", CHECKPOINT, "run/best.safetensors", when=given(*validation))
