"""Reads lists of images: text files of ``path label`` lines, and tables (CSV, TSV) with a header."""

import csv
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

from fasttrain.base.errors import SourceError
from fasttrain.beton_build.images import IMAGE_SUFFIXES
from fasttrain.beton_build.labels import read_text, shown

PATH_COLUMNS = ("path", "image", "file", "filename", "file_name", "filepath", "file_path", "image_path", "img", "imgs")
ID_COLUMNS = ("id", "image_id")
LABEL_COLUMNS = ("label", "class", "target", "class_name", "category", "y")
TABLE_SUFFIXES = (".csv", ".tsv")


@dataclass(frozen=True)
class ListOptions:
    """How lists are to be read: where their paths start, and which columns of a table count."""

    root: Path | None = None
    path_column: str | None = None
    label_column: str | None = None


def read_list(path: Path, options: ListOptions) -> list[tuple[str, str | None]]:
    """(path, label or None) of every entry of a list or table.

    Raises:
        SourceError: the file cannot be read or lacks a column.
    """
    if path.suffix.lower() in TABLE_SUFFIXES:
        return _read_table(path, options.path_column, options.label_column, (*PATH_COLUMNS, *ID_COLUMNS))
    return [_split_line(line) for line in read_text(path).split("\n") if line.strip()]


def read_labels(path: Path, options: ListOptions) -> dict[str, str | None]:
    """The label of each id in a table with the columns ``id,label``.

    Raises:
        SourceError: the file cannot be read, lacks a column, or lists an id twice.
    """
    rows = _read_table(path, None, options.label_column, (*ID_COLUMNS, *PATH_COLUMNS), needs_label=True)
    table = dict(rows)
    if len(table) < len(rows):
        seen: set[str] = set()
        repeated = [sample_id for sample_id, _ in rows if sample_id in seen or seen.add(sample_id)]  # type: ignore[func-returns-value]
        raise SourceError(f"{path} lists ids more than once: {shown(repeated)}")
    return table


def _split_line(line: str) -> tuple[str, str | None]:
    """Split ``path label``: at the last tab if there is one, else at the last blank; a lone path has no label."""
    line = line.strip()
    path, separator, label = line.rpartition("\t")
    if separator:
        return path.strip(), label.strip()
    words = line.rsplit(maxsplit=1)
    if len(words) == 1 or Path(words[1]).suffix.lower() in IMAGE_SUFFIXES:
        return line, None
    return words[0], words[1]


def _read_table(
    path: Path, path_column: str | None, label_column: str | None, usual: tuple[str, ...], needs_label: bool = False
) -> list[tuple[str, str | None]]:
    text = read_text(path)
    if not text.strip():
        raise SourceError(f"{path} is empty; a table starts with a header such as path,label")
    delimiter = max(",;\t", key=text.split("\n", 1)[0].count)
    try:
        rows = list(csv.reader(StringIO(text, newline=""), delimiter=delimiter))
    except csv.Error as error:
        raise SourceError(f"{path} is not a valid table: {error}") from None
    header = [name.strip() for name in rows[0]]
    path_at = _column(path, header, path_column, usual, "--path-column")
    label_at = _column(path, header, label_column, LABEL_COLUMNS, "--label-column", optional=not needs_label)
    assert path_at is not None
    entries: list[tuple[str, str | None]] = []
    for number, row in enumerate(rows[1:], start=2):
        if not row:
            continue
        if len(row) <= max(path_at, label_at or 0) or not row[path_at].strip():
            raise SourceError(f"{path}, line {number}: {len(row)} columns and no path in column {header[path_at]!r}")
        entries.append((row[path_at].strip(), None if label_at is None else row[label_at].strip()))
    return entries


def _column(
    path: Path, header: list[str], wanted: str | None, usual: tuple[str, ...], option: str, optional: bool = False
) -> int | None:
    """Index of the wanted column, or of the first usual one that is there."""
    if wanted is not None:
        if wanted not in header:
            raise SourceError(f"{path} has no column {wanted!r}, only: {', '.join(header)}")
        return header.index(wanted)
    lowered = [name.lower() for name in header]
    for name in usual:
        if name in lowered:
            return lowered.index(name)
    if optional:
        return None
    raise SourceError(
        f"{path} has none of the columns {', '.join(usual)}, only: {', '.join(header)}; name the column with {option}"
    )
