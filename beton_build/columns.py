"""The columns of tables and the keys of JSON objects: which hold paths and labels, and the values of the others."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from fasttrain.base.errors import SourceError
from fasttrain.beton_build.labels import UNKNOWN, is_index, shown

# In the order in which they are preferred: what must be a path, what may be one, what is only an id.
PATH_COLUMNS = (
    "path",
    "image_path",
    "img_path",
    "file_path",
    "filepath",
    "file_name",
    "filename",
    "image",
    "file",
    "img",
    "imgs",
    "image_name",
    "image_id",
    "id",
)
ID_COLUMNS = ("id", "image_id", *(name for name in PATH_COLUMNS if name not in ("id", "image_id")))
# True labels before predicted ones. Of a number and a name (`label`, `label_name`) both are taken: see `pair_names`.
LABEL_COLUMNS = (
    "label",
    "labels",
    "class",
    "class_id",
    "label_id",
    "target",
    "category",
    "category_id",
    "class_name",
    "label_name",
    "category_name",
    "y",
    "pred",
    "pred_label",
    "pred_class",
    "prediction",
)
NAME_COLUMNS = ("label_name", "class_name", "category_name")
_SHOWN_COLUMNS = 20
_WHOLE = re.compile(r"[+-]?(0|[1-9][0-9]*)")
_NUMBER = re.compile(r"[+-]?(((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)(e[+-]?[0-9]+)?|nan|inf)", re.IGNORECASE)


def find_column(
    where: object, names: Sequence[str], wanted: str | None, usual: Sequence[str], option: str | None
) -> str | None:
    """The `wanted` column, or the first of the `usual` ones (in any case of letters) that is there.

    Args:
        where: the file, for messages.
        option: the option that names this column; None if the column may be absent.

    Raises:
        SourceError: it is not there.
    """
    listed = ", ".join(names[:_SHOWN_COLUMNS]) + (", …" if len(names) > _SHOWN_COLUMNS else "")
    if wanted is not None:
        if wanted not in names:
            raise SourceError(f"{where} has no column {wanted!r}, only: {listed}")
        return wanted
    lowered = {name.lower(): name for name in reversed(names)}
    for name in usual:
        if name in lowered:
            return lowered[name]
    if option is None:
        return None
    raise SourceError(
        f"{where} has none of the columns {', '.join(usual)}, only: {listed}; name the column with {option}"
    )


def find_labels(
    where: object, names: Sequence[str], wanted: str | None, needed: bool = False
) -> tuple[str | None, str | None]:
    """The columns of the labels, and of their names where labels are numbers; None where there is none."""
    label = find_column(where, names, wanted, LABEL_COLUMNS, "--label-column" if needed else None)
    if wanted is not None or label is None:
        return label, None
    name = find_column(where, names, None, NAME_COLUMNS, None)
    return label, name if name != label else None


def pair_names(
    where: object, labels: list[str | None], names: Sequence[str | None]
) -> tuple[list[str | None], dict[str, int] | None]:
    """Join labels that are numbers with the names beside them.

    Args:
        labels, names: of each sample, as text; None where unknown.

    Returns:
        The names as labels and the number of each; the labels as they are and None when they are not all numbers, or
        nothing is named.

    Raises:
        SourceError: a number goes with two names, or a name with two numbers.
    """
    pairs = dict.fromkeys(zip(labels, names, strict=True))
    whole = all(is_index(label) for label, _ in pairs if label is not None and label not in UNKNOWN)
    if not whole or not any(label and name for label, name in pairs):
        return labels, None
    name_of: dict[str, str] = {}
    numbers: dict[str, int] = {}
    for label, name in pairs:
        if label is None or label in UNKNOWN or not name:
            continue
        label = str(int(label))
        if name_of.setdefault(label, name) != name:
            raise SourceError(f"{where} contradicts itself: class {label} is called {name_of[label]!r} and {name!r}")
        if numbers.setdefault(name, int(label)) != int(label):
            raise SourceError(f"{where} contradicts itself: {name!r} is class {numbers[name]} and class {label}")
    texts = {(label, name): _paired(where, label, name, name_of, numbers) for label, name in pairs}
    return [texts[pair] for pair in zip(labels, names, strict=True)], numbers


def _paired(
    where: object, label: str | None, name: str | None, name_of: dict[str, str], numbers: dict[str, int]
) -> str | None:
    """The class name of one sample."""
    if label is not None and label not in UNKNOWN:
        if str(int(label)) not in name_of:
            raise SourceError(f"{where} names some of its classes, but not class {label}")
        return name_of[str(int(label))]
    if name and name not in numbers:
        raise SourceError(f"{where} gives numbers to some of its classes, but not to {name!r}")
    return name or None


def numbers_of_text(values: list[str]) -> list[Any]:
    """A column of text as int if all values are whole numbers, as float if all are numbers, else as it is.

    Empty text beside numbers is None. Numbers with leading zeros are codes and stay text, as do those past 64 bits.
    """
    filled = [value for value in values if value]
    if filled and all(_WHOLE.fullmatch(value) for value in filled):
        whole = [int(value) if value else None for value in values]
        return whole if all(value is None or -(1 << 63) <= value < 1 << 63 for value in whole) else list(values)
    if filled and all(_NUMBER.fullmatch(value) for value in filled):
        return [float(value) if value else None for value in values]
    return list(values)


def label_text(value: Any) -> str | None:
    """A label out of JSON as text: text, a whole number, or null.

    Raises:
        ValueError: it is something else.
    """
    if value is None or isinstance(value, str):
        return value.strip() if value else None
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    raise ValueError(f"a label must be text or a whole number, not {value!r:.60}")


def check_kept(keep: Sequence[str], offered: Iterable[str], reserved: Sequence[str]) -> None:
    """Refuse columns that cannot be kept.

    Raises:
        SourceError: no source has one, or its name is taken.
    """
    names = list(dict.fromkeys(offered))
    unknown = [name for name in keep if name not in names]
    if unknown:
        raise SourceError(
            f"no source has the column {shown(unknown)}, which was to be kept; there is: "
            f"{', '.join(names[:_SHOWN_COLUMNS]) or 'none'}{', …' if len(names) > _SHOWN_COLUMNS else ''}"
        )
    taken = [name for name in keep if name in reserved]
    if taken:
        raise SourceError(f"the column {shown(taken)} cannot be kept: every file has a field of that name")
