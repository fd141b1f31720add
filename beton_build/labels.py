"""From labels as text to numbers: by imposed or stated class names, by whole numbers, or by the sorted names."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fasttrain.base.errors import SourceError
from fasttrain.beton_build.found import Found

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
    names = [line.strip() for line in read_text(path).split("\n")]
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
        SourceError: there is no such file, it cannot be read, or it is not UTF-8 text.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise SourceError(f"{path}: no such file") from None
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise SourceError(f"{path} is not a text file in UTF-8") from None
    if "\0" in text:
        raise SourceError(f"{path} is not a text file")
    return text


def number_labels(parts: Sequence[Found], names: list[str] | None) -> tuple[np.ndarray, list[str]]:
    """Give every label of the joined sources its number.

    With `names`, labels are looked up among them; whole numbers are indices into them unless they are names
    themselves. Without, the classes that sources state (another `.beton`, a list with numbers and names) keep their
    numbers, as long as all sources agree with them. Otherwise classes are joined by name and numbered anew in the
    order of the sorted names, whole numbers in numeric order. Where nothing is named, whole numbers in lists mean
    themselves.

    Args:
        parts: the sources. Labels None, empty and "-1" mean unknown.
        names: the class names imposed by the user.

    Returns:
        labels (N,) int64, -1 where unknown, and the class names.

    Raises:
        SourceError: a label is not among `names`, is no possible index, or some sources number and others name their
            classes; the first offenders are named.
    """
    distinct = [set(filter(None, part.labels)) - UNKNOWN for part in parts]
    if names is None:
        names = _stated_names(parts, distinct) or _indexed_names(parts, distinct) or _joined_names(parts, distinct)
    numbers, strangers = [], []
    for part, found in zip(parts, distinct, strict=True):
        number = _numbers_among(names, part, found)
        if len(number) < len(found):
            known = number.keys() | UNKNOWN
            strangers += [pair for pair in zip(part.ids, part.labels, strict=True) if (pair[1] or "") not in known]
        numbers.append(np.array([number.get(label or "", -1) for label in part.labels], np.int64))
    if strangers:
        listed = ", ".join(f"{label!r} of {sample_id!r}" for sample_id, label in strangers[:SHOWN])
        raise SourceError(f"{len(strangers)} labels are not among the {len(names)} classes: {listed}")
    return np.concatenate(numbers) if numbers else np.zeros(0, np.int64), names


def is_index(label: str) -> bool:
    """Whether a label is a whole number that can be a class index."""
    return label.isascii() and label.isdigit() and len(label) < 10


def _are_indices(labels: set[str]) -> bool:
    return bool(labels) and all(map(is_index, labels))


def _numbers_among(names: list[str], part: Found, labels: set[str]) -> dict[str, int]:
    """The number of each label that is one of `names` or, where the source names no classes, an index into them."""
    number_of = {name: number for number, name in enumerate(names)}
    numbered = {label: number_of[label] for label in labels if label in number_of}
    if part.numbers is None:
        indices = {label: int(label) for label in labels if label not in numbered and is_index(label)}
        numbered |= {label: index for label, index in indices.items() if index < len(names)}
    return numbered


def _stated_names(parts: Sequence[Found], distinct: list[set[str]]) -> list[str] | None:
    """The classes that sources state, if these agree and the other sources' labels are among them."""
    number_of: dict[str, int] = {}
    name_of: dict[int, str] = {}
    for part in parts:
        for name, number in (part.numbers or {}).items():
            if number_of.setdefault(name, number) != number or name_of.setdefault(number, name) != name:
                return None
    if not name_of:
        return None
    _check_largest(max(name_of))
    names = [name_of.get(number, str(number)) for number in range(max(name_of) + 1)]
    if len(set(names)) < len(names):
        raise SourceError(
            f"{next(part.name for part in parts if part.numbers)} leaves classes between its own without a name; name "
            "them all with --classes"
        )
    fits = all(
        len(_numbers_among(names, part, labels)) == len(labels) for part, labels in zip(parts, distinct, strict=True)
    )
    return names if fits else None


def _indexed_names(parts: Sequence[Found], distinct: list[set[str]]) -> list[str] | None:
    """Classes 0, 1, … up to the largest label, if all labels are whole numbers and a list is among the sources.

    Labels of one width with leading zeros (``0012``) give class names of that width.
    """
    labels = set().union(*distinct)
    if any(part.numbers for part in parts) or not _are_indices(labels) or not any(part.indices for part in parts):
        return None
    largest = max(map(int, labels))
    _check_largest(largest)
    widths = {len(label) for label in labels}
    padded = len(widths) == 1 and any(len(label) > 1 and label[0] == "0" for label in labels)
    width = widths.pop() if padded else 0
    return [str(number).zfill(width) for number in range(largest + 1)]


def _joined_names(parts: Sequence[Found], distinct: list[set[str]]) -> list[str]:
    """The sorted names of all sources; numbers in numeric order where all names are numbers."""
    names: set[str] = set()
    numbered: list[tuple[Found, set[str]]] = []
    named: list[Found] = []
    for part, labels in zip(parts, distinct, strict=True):
        if part.numbers is None and part.indices and _are_indices(labels):
            numbered.append((part, labels))
        else:
            names |= labels | set(part.numbers or {})
            named += [part] if labels or part.numbers else []
    for part, labels in numbered:
        if not labels <= names:
            raise SourceError(
                f"{part.name} numbers its classes ({shown(sorted(labels, key=int))}), while {named[0].name} names "
                "them; say with --classes which number is which"
            )
    return sorted(names, key=int) if _are_indices(names) else sorted(names)


def _check_largest(largest: int) -> None:
    if largest >= MAX_CLASSES:
        raise SourceError(f"label {largest} is no class index; whole numbers as labels must be under {MAX_CLASSES}")
