"""What a kind of stages is: its command, what goes in and what comes out."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

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
        bare_words: all texts without a suffix or a folder stand for none.
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
    bare_words: bool = False

    def is_word(self, text: str) -> bool:
        """Whether a text stands for no file."""
        return text in self.words or (self.bare_words and PurePath(text).name == text and not PurePath(text).suffix)


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
