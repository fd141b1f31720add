"""From labels as text to numbers: by a given list of class names, by whole numbers, or by the sorted names."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fasttrain.base.errors import SourceError

MAX_CLASSES = 1_000_000
SHOWN = 5
UNKNOWN = {"", "-1"}


def shown(names: Sequence[str]) -> str:
    """The first few of `names`, quoted, for a message."""
    listed = ", ".join(repr(name) for name in names[:SHOWN])
    return listed if len(names) <= SHOWN else f"{listed}, …"


def read_class_names(path: Path) -> list[str]:
    """The class names in a file, one a line.

    Raises:
        SourceError: the file is missing, empty, not text, or names a class twice.
    """
    names = [line.strip() for line in read_text(path).splitlines()]
    names = [name for name in names if name]
    if not names:
        raise SourceError(f"{path} names no class; it should hold one name a line")
    repeated = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if repeated:
        raise SourceError(f"{path} names classes more than once: {shown(repeated)}")
    return names


def read_text(path: Path) -> str:
    """The text of a UTF-8 file (with or without a byte-order mark).

    Raises:
        SourceError: there is no such file, or it is not UTF-8 text.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise SourceError(f"{path}: no such file") from None
    except UnicodeDecodeError:
        raise SourceError(f"{path} is not a text file in UTF-8") from None
    if "\0" in text:
        raise SourceError(f"{path} is not a text file")
    return text


def number_labels(
    ids: Sequence[str], labels: Sequence[str | None], names: list[str] | None, integers_are_indices: bool
) -> tuple[np.ndarray, list[str]]:
    """Give every label its number.

    Args:
        ids: of the samples, for messages.
        labels: as text; None, empty and "-1" mean unknown.
        names: the class names imposed by the user; whole numbers are then indices, unless they are names themselves.
        integers_are_indices: labels that are all whole numbers mean themselves (else they are names in numeric order).

    Returns:
        labels (N,) int64, -1 where unknown, and the class names.

    Raises:
        SourceError: a label is not among `names`, or is no possible index; the first offenders are named.
    """
    texts = [label or "" for label in labels]
    distinct = sorted(set(texts) - UNKNOWN)
    whole = bool(distinct) and all(_is_index(label) for label in distinct)
    if names is not None:
        numbered = _numbers_among(names, distinct)
    elif whole and integers_are_indices:
        largest = max(map(int, distinct))
        if largest >= MAX_CLASSES:
            raise SourceError(f"label {largest} is no class index; whole numbers as labels must be under {MAX_CLASSES}")
        names = [str(number) for number in range(largest + 1)]
        numbered = {label: int(label) for label in distinct}
    else:
        names = sorted(distinct, key=int) if whole else distinct
        numbered = {name: number for number, name in enumerate(names)}
    numbered |= dict.fromkeys(UNKNOWN, -1)
    strangers = [(sample_id, label) for sample_id, label in zip(ids, texts, strict=True) if label not in numbered]
    if strangers:
        listed = ", ".join(f"{label!r} of {sample_id!r}" for sample_id, label in strangers[:SHOWN])
        raise SourceError(f"{len(strangers)} labels are not among the {len(names)} classes: {listed}")
    return np.array([numbered[label] for label in texts], np.int64), names


def _numbers_among(names: list[str], labels: Sequence[str]) -> dict[str, int]:
    """The number of each label that is one of `names` or an index into them."""
    numbered = {name: number for number, name in enumerate(names)}
    indices = {label: int(label) for label in labels if label not in numbered and _is_index(label)}
    return numbered | {label: index for label, index in indices.items() if index < len(names)}


def _is_index(label: str) -> bool:
    return label.isascii() and label.isdigit() and len(label) < 10
