"""The kinds of stages: which command does the work, what goes in and what comes out.

A new kind is one entry of `KINDS`. Keys of a stage that are no inputs are options of the command (``max_size`` is
``--max-size``), or, with `takes_settings`, go into the file of settings that the command gets by ``--config``.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fasttrain.base.config import nearest_name
from fasttrain.base.errors import ConfigError
from fasttrain.recipes.toolbox import Toolbox

# What files hold. Labels that were withheld when a target set was built are of a type that `evaluate` alone takes, and
# so is a data set that was built with the masks of a target set (TRUTH).
DATASET, IMAGES, CHECKPOINT, WEIGHTS, TABLE = "dataset", "images", "checkpoint", "weights", "table"
LABELS, WITHHELD, IDS, CLASSES, COUNTS = "labels", "withheld", "ids", "classes", "counts"
SCORES, FIGURES, SUBMISSION, RULES, RUN = "scores", "figures", "submission", "rules", "run"
MASKS, TRUTH, PALETTE, PICTURES = "masks", "truth", "palette", "pictures"
TYPES = (
    *(DATASET, IMAGES, CHECKPOINT, WEIGHTS, TABLE, LABELS, WITHHELD, IDS, CLASSES, COUNTS),
    *(SCORES, FIGURES, SUBMISSION, RULES, RUN, MASKS, TRUTH, PALETTE, PICTURES),
)
RESULT = "result.json"  # the command's JSON object
Body = Mapping[str, Any]


@dataclass(frozen=True)
class Input:
    """A file that a stage reads; an option that the command has not, is none.

    Attributes:
        key: of the stage; dotted within groups of settings.
        types: what it may hold.
        many: a list of files, too.
        named: a mapping of names to files.
        required: the stage cannot do without.
        positional: it stands in the command line without an option's name.
        words: texts that stand for no file.
        sees_target: may be given the files of a target set, labels and all.
    """

    key: str
    types: tuple[str, ...]
    many: bool = False
    named: bool = False
    required: bool = False
    positional: bool = False
    words: tuple[str, ...] = ()
    sees_target: bool = False


def _always(_: Body) -> bool:
    return True


def _never(_: Body) -> bool:
    return False


@dataclass(frozen=True)
class Output:
    """A file that a stage writes.

    Attributes:
        name, type: as other stages refer to it, and what it holds.
        file: its name in the stage's folder; may depend on the stage's body.
        option: that names it in the command line; "" where it stands without, None where the command is not told.
        when: whether a stage of this body writes it.
        shows_target: whether it is of the type `TRUTH` instead, for a stage of this body.
    """

    name: str
    type: str
    file: str | Callable[[Body], str]
    option: str | None = None
    when: Callable[[Body], bool] = _always
    shows_target: Callable[[Body], bool] = _never

    def type_of(self, body: Body) -> str:
        """What it holds, written by a stage of this body."""
        return TRUTH if self.shows_target(body) else self.type

    def file_of(self, body: Body) -> str:
        """Name in the stage's folder."""
        return self.file if isinstance(self.file, str) else self.file(body)


@dataclass(frozen=True)
class Kind:
    """One kind of stage.

    Attributes:
        name: in recipes.
        command: of fasttrain.
        inputs: what is read.
        outputs: what is written; the first one is what ``${stage}`` means.
        takes_settings: inputs and options go into a file of settings (``--config``).
        out_setting: name of the folder that such a command writes into, in the stage's.
        resume: option with which an interrupted stage goes on; None where it begins anew.
        uses_gpu: has one GPU if nothing is said and there is any.
        torchrun: may be several processes.
        counts_processes: the result depends on their number.
        defaults: options that a recipe need not say, from the body and the names of its inputs.
        renamed: options that recipes know under other names, as keys of stages are taken: theirs, and the command's.
        same_classes: inputs whose classes must be equal, and are those of the outputs.
        known_classes: pairs of inputs; the classes of the first must be among those of the second.
        work: what its time is proportional to: ``samples`` of `sized_by`, or ``samples*epochs``.
        version: raised when the command's results change, so that stages are done again.
    """

    name: str
    command: tuple[str, ...]
    inputs: tuple[Input, ...]
    outputs: tuple[Output, ...]
    takes_settings: bool = False
    out_setting: str | None = None
    resume: str | None = None
    uses_gpu: bool = False
    torchrun: bool = False
    counts_processes: bool = False
    defaults: Callable[[Body], dict[str, Any]] = field(default=lambda _: {})
    renamed: Mapping[str, str] = field(default_factory=dict)
    same_classes: tuple[str, ...] = ()
    known_classes: tuple[tuple[str, str], ...] = ()
    work: str | None = None
    sized_by: str | None = None
    version: int = 1

    def input(self, key: str) -> Input | None:
        """The input of that key."""
        return next((entry for entry in self.inputs if entry.key == key), None)

    def outputs_of(self, body: Body) -> dict[str, Output]:
        """What a stage of this body writes."""
        return {output.name: output for output in self.outputs if output.when(body)}


def _given(*keys: str) -> Callable[[Body], bool]:
    return lambda body: any(body.get(key) for key in keys)


def is_withheld(body: Body) -> bool:
    """Whether a build reads a target set, and so keeps its labels out of the data set."""
    sources = body.get("sources")
    return any(getattr(source, "target", False) for source in (sources if isinstance(sources, list) else [sources]))


def has_target_masks(body: Body) -> bool:
    """Whether a build reads the masks of a target set, so that what it writes shows them."""
    return bool(getattr(body.get("masks"), "target", False))


def _keeps_teacher(body: Body) -> bool:
    adaptation = body.get("adaptation")
    return isinstance(adaptation, Mapping) and adaptation.get("keep") == "teacher"


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


def _of_a_model(name: str, command: str, outputs: tuple[Output, ...], sees_target: bool = False) -> Kind:
    """A kind that runs a model over a data set."""
    return Kind(
        name,
        (command,),
        inputs=(
            Input("checkpoint", _MODELS, required=True, positional=True),
            Input("data", _DATA, required=True, positional=True, sees_target=sees_target),
            Input("ids", (IDS, LABELS)),
        ),
        outputs=outputs,
        uses_gpu=True,
        torchrun=True,
        same_classes=("checkpoint",),
        known_classes=(("data", "checkpoint"),),
        work="samples",
        sized_by="data",
    )


def _of_masks(name: str, command: str, inputs: tuple[Input, ...], outputs: tuple[Output, ...], sized_by: str) -> Kind:
    """A kind that trains a segmentation model."""
    return Kind(
        name,
        ("segment", command),
        inputs=(*inputs, Input("val", _DATASETS, many=True), Input("weights", _MODELS)),
        outputs=(
            *outputs,
            Output("best", CHECKPOINT, "run/best.safetensors", when=_given("val")),
            Output("run", RUN, "run"),
        ),
        takes_settings=True,
        out_setting="run",
        resume="--resume",
        uses_gpu=True,
        torchrun=True,
        counts_processes=True,
        same_classes=("data",),
        known_classes=(("val", "data"),),
        sized_by=sized_by,
    )


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
    Kind(
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
            Input("loss.class_weights", (COUNTS,), words=("inverse", "effective")),
        ),
        outputs=(
            Output("checkpoint", CHECKPOINT, "run/last.safetensors"),
            Output("best", CHECKPOINT, "run/best.safetensors", when=_given("val", "extra_val")),
            Output("averaged", CHECKPOINT, "run/swa.safetensors", when=_given("swa_start")),
            Output("run", RUN, "run"),
        ),
        takes_settings=True,
        out_setting="run",
        resume="--resume",
        uses_gpu=True,
        torchrun=True,
        counts_processes=True,
        same_classes=("data",),
        known_classes=(("val", "data"), ("extra_val", "data")),
        work="samples*epochs",
        sized_by="data",
    ),
    _of_masks(
        "segment_train",
        "train",
        inputs=(Input("data", _DATASETS, many=True, required=True),),
        outputs=(Output("checkpoint", CHECKPOINT, "run/last.safetensors"),),
        sized_by="data",
    ),
    _of_masks(
        "segment_adapt",
        "adapt",
        inputs=(
            Input("data", _DATASETS, many=True, required=True),
            Input("target", _DATA, many=True, required=True),
        ),
        outputs=(
            Output("checkpoint", CHECKPOINT, "run/last.safetensors"),
            Output("teacher", CHECKPOINT, "run/teacher.safetensors", when=lambda body: not _keeps_teacher(body)),
            Output("student", CHECKPOINT, "run/student.safetensors", when=_keeps_teacher),
        ),
        sized_by="data",
    ),
    Kind(
        "masks_show",
        ("masks", "show"),
        inputs=(Input("data", _DATASETS, required=True, positional=True),),
        outputs=(Output("pictures", PICTURES, "pictures", "--out"),),
    ),
    Kind(
        "segment_predict",
        ("segment", "predict"),
        inputs=(
            Input("checkpoint", (CHECKPOINT,), required=True, positional=True),
            Input("data", _DATA, required=True, positional=True),
            Input("ids", (IDS, LABELS)),
        ),
        outputs=(Output("masks", MASKS, "masks", "--out"),),
        uses_gpu=True,
        torchrun=True,
        work="samples",
        sized_by="data",
    ),
    Kind(
        "segment_evaluate",
        ("segment", "evaluate"),
        inputs=(
            Input("checkpoint", (CHECKPOINT,), required=True, positional=True),
            Input("data", (DATASET, TRUTH), required=True, positional=True, sees_target=True),
            Input("ids", (IDS, LABELS)),
        ),
        outputs=_FIGURES,
        uses_gpu=True,
        torchrun=True,
        same_classes=("checkpoint",),
        known_classes=(("data", "checkpoint"),),
        work="samples",
        sized_by="data",
    ),
    Kind(
        "pretrain",
        ("pretrain",),
        inputs=(
            Input("data", _DATA, many=True, required=True),
            Input("ids", (IDS, LABELS)),
            Input("weights", _MODELS),
        ),
        outputs=(Output("checkpoint", CHECKPOINT, "run/last.safetensors"), Output("run", RUN, "run")),
        takes_settings=True,
        out_setting="run",
        resume="--resume",
        uses_gpu=True,
        torchrun=True,
        counts_processes=True,
        work="samples*epochs",
        sized_by="data",
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
    _of_a_model("predict", "predict", _TABLE),
    _of_a_model("evaluate_model", "evaluate", _FIGURES, sees_target=True),
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
