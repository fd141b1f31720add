"""What one source yields, in the form in which sources are joined; and how sources are to be read."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fasttrain.beton_build.origins import Origin

RESERVED = ("image", "label")  # fields that every `.beton` has already
KEEP_ALL = "all"


@dataclass(frozen=True)
class SourceOptions:
    """How sources are to be read.

    Attributes:
        root: folder that relative paths of lists start from; their own folder if None.
        path_column, label_column: columns that count; found by their usual names if None.
        image_suffix: suffix of the images of WebDataset samples; the only image of a sample if None.
        keep: further columns to keep; ("all",) for every one.
        labelled: False: folders are trees of images, whatever they are called.
    """

    root: Path | None = None
    path_column: str | None = None
    label_column: str | None = None
    image_suffix: str | None = None
    keep: tuple[str, ...] = ()
    labelled: bool = True

    def kept(self, offered: Iterable[str]) -> list[str]:
        """Those of the `offered` columns that are to be kept."""
        if KEEP_ALL in self.keep:
            return [name for name in offered if name not in RESERVED]
        return [name for name in offered if name in self.keep]


@dataclass
class Found:
    """What one source yields, its labels still as text.

    Attributes:
        name: what to call the source in messages.
        ids, origins, labels: of each sample; None is an unknown label.
        numbers: the number of each class by name, where the source states it; labels are then names.
        indices: whether labels that are all whole numbers are class indices (else they are names like others).
        columns: values of each sample by the name of a column that is kept.
        offered: all columns that could be kept.
        ignored: number of files that are not images.
        missing: listed paths of images that do not exist.
    """

    name: str
    ids: list[str] = field(default_factory=list)
    origins: list[Origin] = field(default_factory=list)
    labels: list[str | None] = field(default_factory=list)
    numbers: dict[str, int] | None = None
    indices: bool = False
    columns: dict[str, list[Any]] = field(default_factory=dict)
    offered: Sequence[str] = ()
    ignored: int = 0
    missing: list[str] = field(default_factory=list)

    def forget_labels(self) -> None:
        """Leave no sample a label, and state no class."""
        self.labels, self.numbers = [None] * len(self.ids), None

    def prefix_ids(self, prefix: str) -> None:
        """Start every id with ``PREFIX/``."""
        self.ids = [f"{prefix}/{sample_id}" for sample_id in self.ids]


@dataclass
class Entries:
    """What a list says, its paths not yet looked up.

    Attributes:
        paths, labels: of each entry; None is an unknown label.
        numbers, columns, offered: as in `Found`.
    """

    paths: list[str]
    labels: list[str | None]
    numbers: dict[str, int] | None = None
    columns: dict[str, list[Any]] = field(default_factory=dict)
    offered: Sequence[str] = ()
