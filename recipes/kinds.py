"""The kinds of stages: which command does the work, what goes in and what comes out.

A new kind is one entry of `KINDS`. Keys of a stage that are no inputs are options of the command (``max_size`` is
``--max-size``), or, with `takes_settings`, go into the file of settings that the command gets by ``--config``.
"""

from collections.abc import Mapping
from typing import Any

from fasttrain.base.config import nearest_name
from fasttrain.base.errors import ConfigError
from fasttrain.recipes.kind import (
    CHECKPOINT,
    CLASSES,
    COUNTS,
    DATASET,
    IDS,
    IMAGES,
    LABELS,
    MASKS,
    PALETTE,
    PICTURES,
    RULES,
    RUN,
    SCORES,
    SUBMISSION,
    TABLE,
    TRUTH,
    WITHHELD,
    Body,
    Input,
    Kind,
    Output,
)
from fasttrain.recipes.kind_families import (
    DATA,
    DATASETS,
    FIGURES_OUT,
    MODELS,
    TABLE_OUT,
    best,
    given,
    of_a_model,
    training,
    unlabelled,
)
from fasttrain.recipes.toolbox import Toolbox


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


KINDS: tuple[Kind, ...] = (
    Kind(
        "build",
        ("build",),
        inputs=(
            Input("sources", DATA, many=True, required=True, positional=True, sees_target=True),
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
                when=given("val_fraction"),
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
            Input("sources", DATA, many=True, required=True, positional=True),
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
    training(
        "train",
        ("train",),
        inputs=(
            Input("data", DATA, many=True, required=True),
            Input("val", DATA, many=True),
            Input("extra_val", DATA, named=True),
            Input("ids", (IDS, LABELS)),
            Input("val_ids", (IDS, LABELS)),
            Input("weights", MODELS),
            Input("distill.teacher", (CHECKPOINT, TABLE)),
            Input("co_teacher.domains", (LABELS,), bare_words=True),
            Input("loss.class_weights", (COUNTS,), words=("inverse", "effective")),
        ),
        outputs=(
            best("val", "extra_val"),
            Output("averaged", CHECKPOINT, "run/swa.safetensors", when=given("swa_start")),
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
    training(
        "segment_train",
        ("segment", "train"),
        inputs=(
            Input("data", DATASETS, many=True, required=True),
            Input("val", DATASETS, many=True),
            Input("weights", MODELS),
        ),
        outputs=(best("val"),),
        work=None,
    ),
    training(
        "segment_adapt",
        ("segment", "adapt"),
        inputs=(
            Input("data", DATASETS, many=True, required=True),
            Input("target", DATA, many=True, required=True),
            Input("val", DATASETS, many=True),
            Input("weights", MODELS),
        ),
        outputs=(
            Output("teacher", CHECKPOINT, "run/teacher.safetensors", when=lambda body: not _keeps_teacher(body)),
            Output("student", CHECKPOINT, "run/student.safetensors", when=_keeps_teacher),
            best("val"),
        ),
        work=None,
    ),
    Kind(
        "masks_show",
        ("masks", "show"),
        inputs=(Input("data", DATASETS, required=True, positional=True),),
        outputs=(Output("pictures", PICTURES, "pictures", "--out"),),
    ),
    of_a_model(
        "segment_predict",
        ("segment", "predict"),
        (Output("masks", MASKS, "masks", "--out"),),
        models=(CHECKPOINT,),
        tells_classes=False,
    ),
    of_a_model(
        "segment_evaluate",
        ("segment", "evaluate"),
        FIGURES_OUT,
        models=(CHECKPOINT,),
        data=(DATASET, TRUTH),
        sees_target=True,
    ),
    unlabelled("objects_train", ("objects", "train")),
    of_a_model(
        "objects_masks",
        ("objects", "masks"),
        (
            Output("masks", MASKS, "masks", "--out"),
            Output("classes", CLASSES, "masks/classes.txt"),
            Output("pictures", PICTURES, "masks_pictures.png", when=given("pictures")),
        ),
        models=(CHECKPOINT,),
        tells_classes=False,
    ),
    unlabelled("pretrain", ("pretrain",)),
    Kind(
        "soup",
        ("soup",),
        inputs=(
            Input("checkpoints", (CHECKPOINT,), many=True, positional=True),
            Input("run", (RUN,)),
            Input("val", DATA),
            Input("bn_data", DATA),
        ),
        outputs=(Output("checkpoint", CHECKPOINT, "soup.safetensors", "--out"),),
        uses_gpu=True,
        same_classes=("checkpoints",),
        known_classes=(("val", "checkpoints"),),
    ),
    of_a_model("predict", ("predict",), TABLE_OUT),
    of_a_model("evaluate_model", ("evaluate",), FIGURES_OUT, sees_target=True),
    Kind(
        "evaluate",
        ("scores", "evaluate"),
        inputs=(
            Input("table", (TABLE,), required=True, positional=True),
            Input("labels", (LABELS, WITHHELD), sees_target=True),
        ),
        outputs=FIGURES_OUT,
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
        outputs=TABLE_OUT,
        renamed={"space": "kind"},  # logits, probs or log_probs, as in `ensemble`
    ),
    Kind(
        "ensemble",
        ("ensemble",),
        inputs=(
            Input("tables", (TABLE,), many=True, required=True, positional=True),
            Input("validation", (TABLE,), many=True),
        ),
        outputs=TABLE_OUT,
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
        outputs=TABLE_OUT,
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
        outputs=TABLE_OUT,
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
