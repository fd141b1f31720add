"""Reads lists of images: text files of ``path label`` lines, and tables (CSV, TSV) with a header."""

import csv
import os
from collections.abc import Iterator, Sequence
from io import StringIO
from pathlib import Path

from fasttrain.base.errors import SourceError
from fasttrain.beton_build.columns import (
    ID_COLUMNS,
    PATH_COLUMNS,
    find_column,
    find_labels,
    numbers_of_text,
    pair_names,
)
from fasttrain.beton_build.found import Entries, SourceOptions
from fasttrain.beton_build.images import IMAGE_SUFFIXES
from fasttrain.beton_build.labels import read_text, shown

TABLE_SUFFIXES = (".csv", ".tsv")


def read_text_list(path: Path) -> Entries:
    """The entries of a text file: a line ``path label``, or only ``path``, for each image.

    The label is what follows the last tab, or else the last blank; a last word that is an image's name belongs to the
    path.

    Raises:
        SourceError: the file cannot be read.
    """
    lines = (line.strip(" \t\r") for line in read_text(path).split("\n"))
    pairs = [_split_line(line) for line in lines if line]
    return Entries([name for name, _ in pairs], [label for _, label in pairs])


def _split_line(line: str) -> tuple[str, str | None]:
    name, separator, label = line.rpartition("\t")
    if separator:
        return name.strip(" \t"), label.strip()
    name, separator, label = line.rpartition(" ")
    if not separator or os.path.splitext(label)[1].lower() in IMAGE_SUFFIXES:
        return line, None
    return name.rstrip(" "), label


def read_table(
    path: Path, options: SourceOptions, usual: Sequence[str] = PATH_COLUMNS, needs_label: bool = False
) -> Entries:
    """The entries of a table with a header, its columns separated by commas, semicolons or tabs.

    Args:
        usual: names of the column that holds the paths, most wanted first.

    Raises:
        SourceError: the file cannot be read, or lacks a column; the line is named.
    """
    header, rows = _open_table(path)
    path_column = find_column(path, header, options.path_column, usual, "--path-column")
    label_column, name_column = find_labels(path, header, options.label_column, needs_label)
    used = {path_column, label_column, name_column}
    offered = [name for name in dict.fromkeys(header) if name and name not in used]
    kept = options.kept(offered)
    taken = [name for name in (path_column, label_column, name_column, *kept) if name is not None]
    values = _columns(path, header, rows, taken)
    paths = values[str(path_column)]
    labels: list[str | None] = [None] * len(paths)
    numbers = None
    if label_column is not None:
        labels = [*values[label_column]]
    if name_column is not None:
        labels, numbers = pair_names(path, labels, values[name_column])
    return Entries(paths, labels, numbers, {name: numbers_of_text(values[name]) for name in kept}, offered)


def read_labels(path: Path, options: SourceOptions) -> Entries:
    """The labels of a table with the columns ``id,label``; the ids stand as `paths`.

    Raises:
        SourceError: the file cannot be read, lacks a column, or lists an id twice.
    """
    table = read_table(path, SourceOptions(label_column=options.label_column), ID_COLUMNS, needs_label=True)
    if len(set(table.paths)) < len(table.paths):
        seen: set[str] = set()
        repeated = [name for name in table.paths if name in seen or seen.add(name)]  # type: ignore[func-returns-value]
        raise SourceError(f"{path} lists ids more than once: {shown(repeated)}")
    return table


def read_ids(path: Path) -> list[str]:
    """The ids in a file of one id a line, or in a table (CSV, TSV) with a column of ids.

    Raises:
        SourceError: the file cannot be read, or names none.
    """
    if path.suffix.lower() in TABLE_SUFFIXES:
        ids = read_table(path, SourceOptions(), ID_COLUMNS).paths
    else:
        ids = [line for line in (line.strip(" \t\r") for line in read_text(path).split("\n")) if line]
    if not ids:
        raise SourceError(f"{path} names no id; it should hold one a line")
    return ids


def _open_table(path: Path) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    """The header, and (line number, cells) of each row that is not empty."""
    text = read_text(path)
    if not text.strip():
        raise SourceError(f"{path} is empty; a table starts with a header such as path,label")
    delimiter = max(",;\t", key=text.split("\n", 1)[0].count)
    reader = csv.reader(StringIO(text, newline=""), delimiter=delimiter)

    def rows() -> Iterator[tuple[int, list[str]]]:
        try:
            for row in reader:
                if row:
                    yield reader.line_num, row
        except csv.Error as error:
            raise SourceError(f"{path} is not a valid table: line {reader.line_num}: {error}") from None

    filled = rows()
    return [name.strip() for name in next(filled)[1]], filled


def _columns(
    path: Path, header: list[str], rows: Iterator[tuple[int, list[str]]], taken: list[str]
) -> dict[str, list[str]]:
    """The values of the columns `taken`, stripped of blanks; those of the first must not be empty."""
    places = [header.index(name) for name in taken]
    last = max(places)
    values: list[list[str]] = [[] for _ in taken]
    for number, row in rows:
        if len(row) <= last or not row[places[0]].strip():
            raise SourceError(f"{path}, line {number}: {len(row)} columns and no {_lacking(row, places, taken)}")
        for place, column in zip(places, values, strict=True):
            column.append(row[place].strip())
    return dict(zip(taken, values, strict=True))


def _lacking(row: list[str], places: list[int], taken: list[str]) -> str:
    if len(row) <= places[0] or not row[places[0]].strip():
        return f"path in column {taken[0]!r}"
    return f"column {next(name for name, place in zip(taken, places, strict=True) if place >= len(row))!r}"
