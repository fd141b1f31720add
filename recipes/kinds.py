"""The kinds of stages: which command does the work, what goes in and what comes out.

A new kind is one entry of `KINDS`. Keys of a stage that are no inputs are options of the command (``max_size`` is
``--max-size``), or, with `takes_settings`, go into the file of settings that the command gets by ``--config``.
"""

from collections.abc import Callable, Mapping
from typing import Any

from fasttrain.base.config import nearest_name
from fasttrain.base.errors import ConfigError
from fasttrain.recipes.kind import (
    CHECKPOINT,
    CLASSES,
    COUNTS,
    DATASET,
    FIGURES,
    IDS,
    IMAGES,
    LABELS,
    MASKS,
    PALETTE,
    PICTURES,
    RESULT,
    RULES,
    RUN,
    SCORES,
    SUBMISSION,
    TABLE,
    TRUTH,
    WEIGHTS,
    WITHHELD,
    Body,
    Input,
    Kind,
    Output,
)
from fasttrain.recipes.toolbox import Toolbox


def _given(*keys: str) -> Callable[[Body], bool]:
    return lambda body: any(body.get(key) for key in keys)


def is_withheld(body: Body) -> bool:
    """Whether a build reads a target set, and so keeps its labels out of the data set."""
    sources = body.get("sources")
    return any(getattr(source, "target", False) for source in (sources if isinstance(sources, list) else [sources]))


def has_target_masks(body: Body) -> bool:
    """Whether a build reads the masks of a target set, so that what it writes shows them."""
    return bool(getattr(body.get("masks"), "target", False))


def _keeps_teacher(body: Body, group: str = "adaptation") -> bool:
    values = body.get(group)
    return isinstance(values, Mapping) and values.get("keep") == "teacher"


def _co_teaches(body: Body) -> bool:
    values = body.get("co_teacher")
    return isinstance(values, Mapping) and bool(values.get("weight"))


def _submission_file(body: Body) -> str:
    return f"submission.{body.get('format', 'csv')}" + (".zip" if body.get("zip") else "")


def _origin(body: Body) -> dict[str, Any]:
    """For the column `source` of pseudo-labels: the stage that wrote the table, whose files have all one name."""
    return {"source": getattr(body.get("table"), "stage", None)} if "source" not in body else {}


_DATASETS = (DATASET,)
_DATA = (DATASET, IMAGES)
_MODELS = (CHECKPOINT, WEIGHTS)
_FIGURES = (Output("figures", FIGURES, RESULT),)
_TABLE = (Output("table", TABLE, "table.arrow", "--out"),)


_CHECKPOINT = Output("checkpoint", CHECKPOINT, "run/last.safetensors")
_RUN = Output("run", RUN, "run")


def _of_a_model(
    name: str,
    command: tuple[str, ...],
    outputs: tuple[Output, ...],
    models: tuple[str, ...] = _MODELS,
    data: tuple[str, ...] = _DATA,
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


def _training(
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


def _best(*validation: str) -> Output:
    """Of a stage that validates on one of these inputs."""
    return Output("best", CHECKPOINT, "run/best.safetensors", when=_given(*validation))


KINDS: tuple[Kind, ...] = (
    Kind(
        "build",
        ("build",),
        inputs=(
            Input("sources", _DATA, many=True, required=True, positional=True, sees_target=True),
            Input("labels", (LABELS,)),
            Input("ids", (IDS, LABELS)),
            Input("classes", (CLASSES, DATASET)),
            Input("masks", (MASKS, IMAGES), sees_target=True),
            Input("mask_classes", (CLASSES,)),
            Input("palette", (PALETTE,)),
            Input("mask_map", (RULES,)),
        ),
        outputs=(
            Output("dataset", DATASET, "data.beton", "", shows_target=has_target_masks),
            Output(
                "val",
                DATASET,
                "val.beton",
                "--val-out",
                when=_given("val_fraction"),
                shows_target=has_target_masks,
            ),
            Output("labels", WITHHELD, "labels.csv", "--withhold-labels", when=is_withheld),
        ),
        resume="--resume",
        work="samples",
        sized_by="sources",
    ),
    Kind(
        "corrupt",
        ("corrupt",),
        inputs=(
            Input("sources", _DATA, many=True, required=True, positional=True),
            Input("classes", (CLASSES, DATASET)),
        ),
        outputs=(
            Output("labels", LABELS, "labels.csv", "--out"),
            Output("truth", WITHHELD, "truth.csv", "--truth"),
        ),
    ),
    Kind(
        "merge",
        ("merge",),
        inputs=(Input("sources", (DATASET,), many=True, required=True, positional=True),),
        outputs=(Output("dataset", DATASET, "data.beton", ""),),
        same_classes=("sources",),
        work="samples",
        sized_by="sources",
    ),
    _training(
        "train",
        ("train",),
        inputs=(
            Input("data", _DATA, many=True, required=True),
            Input("val", _DATA, many=True),
            Input("extra_val", _DATA, named=True),
            Input("ids", (IDS, LABELS)),
            Input("val_ids", (IDS, LABELS)),
            Input("weights", _MODELS),
            Input("distill.teacher", (CHECKPOINT, TABLE)),
            Input("co_teacher.domains", (LABELS,), bare_words=True),
            Input("loss.class_weights", (COUNTS,), words=("inverse", "effective")),
        ),
        outputs=(
            _best("val", "extra_val"),
            Output("averaged", CHECKPOINT, "run/swa.safetensors", when=_given("swa_start")),
            Output(
                "teacher",
                CHECKPOINT,
                "run/teacher.safetensors",
                when=lambda body: _co_teaches(body) and not _keeps_teacher(body, "co_teacher"),
            ),
            Output(
                "student",
                CHECKPOINT,
                "run/student.safetensors",
                when=lambda body: _co_teaches(body) and _keeps_teacher(body, "co_teacher"),
            ),
        ),
        known_classes=(("val", "data"), ("extra_val", "data")),
    ),
    _training(
        "segment_train",
        ("segment", "train"),
        inputs=(
            Input("data", _DATASETS, many=True, required=True),
            Input("val", _DATASETS, many=True),
            Input("weights", _MODELS),
        ),
        outputs=(_best("val"),),
        work=None,
    ),
    _training(
        "segment_adapt",
        ("segment", "adapt"),
        inputs=(
            Input("data", _DATASETS, many=True, required=True),
            Input("target", _DATA, many=True, required=True),
            Input("val", _DATASETS, many=True),
            Input("weights", _MODELS),
        ),
        outputs=(
            Output("teacher", CHECKPOINT, "run/teacher.safetensors", when=lambda body: not _keeps_teacher(body)),
            Output("student", CHECKPOINT, "run/student.safetensors", when=_keeps_teacher),
            _best("val"),
        ),
        work=None,
    ),
    Kind(
        "masks_show",
        ("masks", "show"),
        inputs=(Input("data", _DATASETS, required=True, positional=True),),
        outputs=(Output("pictures", PICTURES, "pictures", "--out"),),
    ),
    _of_a_model(
        "segment_predict",
        ("segment", "predict"),
        (Output("masks", MASKS, "masks", "--out"),),
        models=(CHECKPOINT,),
        tells_classes=False,
    ),
    _of_a_model(
        "segment_evaluate",
        ("segment", "evaluate"),
        _FIGURES,
        models=(CHECKPOINT,),
        data=(DATASET, TRUTH),
        sees_target=True,
    ),
    _training(
        "objects_train",
        ("objects", "train"),
        inputs=(
            Input("data", _DATA, many=True, required=True),
            Input("ids", (IDS, LABELS)),
            Input("weights", _MODELS),
        ),
        outputs=(),
        same_classes=(),
        known_classes=(),
    ),
    _of_a_model(
        "objects_masks",
        ("objects", "masks"),
        (
            Output("masks", MASKS, "masks", "--out"),
            Output("classes", CLASSES, "masks/classes.txt"),
            Output("pictures", PICTURES, "masks_pictures.png", when=_given("pictures")),
        ),
        models=(CHECKPOINT,),
        tells_classes=False,
    ),
    _training(
        "pretrain",
        ("pretrain",),
        inputs=(
            Input("data", _DATA, many=True, required=True),
            Input("ids", (IDS, LABELS)),
            Input("weights", _MODELS),
        ),
        outputs=(),
        same_classes=(),
        known_classes=(),
    ),
    Kind(
        "soup",
        ("soup",),
        inputs=(
            Input("checkpoints", (CHECKPOINT,), many=True, positional=True),
            Input("run", (RUN,)),
            Input("val", _DATA),
            Input("bn_data", _DATA),
        ),
        outputs=(Output("checkpoint", CHECKPOINT, "soup.safetensors", "--out"),),
        uses_gpu=True,
        same_classes=("checkpoints",),
        known_classes=(("val", "checkpoints"),),
    ),
    _of_a_model("predict", ("predict",), _TABLE),
    _of_a_model("evaluate_model", ("evaluate",), _FIGURES, sees_target=True),
    Kind(
        "evaluate",
        ("scores", "evaluate"),
        inputs=(
            Input("table", (TABLE,), required=True, positional=True),
            Input("labels", (LABELS, WITHHELD), sees_target=True),
        ),
        outputs=_FIGURES,
        same_classes=("table",),
    ),
    Kind(
        "import",
        ("scores", "import"),
        inputs=(
            Input("scores", (SCORES,), required=True, positional=True),
            Input("classes", (CLASSES,)),
            Input("labels", (LABELS,)),
            Input("ids", (IDS,)),
        ),
        outputs=_TABLE,
        renamed={"space": "kind"},  # logits, probs or log_probs, as in `ensemble`
    ),
    Kind(
        "ensemble",
        ("ensemble",),
        inputs=(
            Input("tables", (TABLE,), many=True, required=True, positional=True),
            Input("validation", (TABLE,), many=True),
        ),
        outputs=_TABLE,
        same_classes=("tables",),
    ),
    Kind(
        "adjust",
        ("scores", "adjust"),
        inputs=(
            Input("table", (TABLE,), required=True, positional=True),
            Input("fit_temperature", (TABLE,)),
            Input("train_counts", (COUNTS, DATASET)),
            Input("rules", (RULES,), words=("ood_cv",)),
        ),
        outputs=_TABLE,
        same_classes=("table",),
    ),
    Kind(
        "redistribute",
        ("redistribute",),
        inputs=(
            Input("table", (TABLE,), required=True, positional=True),
            Input("prior", (COUNTS, DATASET), words=("uniform", "estimate", "train")),
            Input("calibrate", (TABLE,)),
        ),
        outputs=_TABLE,
        same_classes=("table",),
    ),
    Kind(
        "pseudo",
        ("pseudo",),
        inputs=(
            Input("table", (TABLE,), required=True, positional=True),
            Input("per_class", (RULES,)),
            Input("agree", (TABLE,), many=True),
            Input("merge", (LABELS,), many=True),
            Input("labels", (LABELS,)),
        ),
        outputs=(Output("labels", LABELS, "labels.csv", "--out"),),
        defaults=_origin,
        same_classes=("table",),
    ),
    Kind(
        "clean",
        ("clean",),
        inputs=(Input("tables", (TABLE,), many=True, required=True, positional=True),),
        outputs=(Output("kept", IDS, "kept.txt", "--kept"), Output("suspects", IDS, "suspects.csv", "--out")),
        same_classes=("tables",),
    ),
    Kind(
        "submit",
        ("submit",),
        inputs=(Input("table", (TABLE,), required=True, positional=True),),
        outputs=(Output("submission", SUBMISSION, _submission_file, "--out"),),
        same_classes=("table",),
    ),
)


def find_kind(name: str, toolbox: Toolbox, where: str) -> Kind:
    """The kind of that name.

    Raises:
        ConfigError: there is none, or this fasttrain has not its command.
    """
    for kind in KINDS:
        if kind.name == name and toolbox.options(kind.command) is not None:
            return kind
    known = [kind.name for kind in KINDS if toolbox.options(kind.command) is not None]
    raise ConfigError(f"{where}: there is no kind {name!r} of stages; {nearest_name(name, known)}")
