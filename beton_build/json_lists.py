"""Reads lists of images in JSON: a list of objects, an object with such a list as ``images``, or an object a line."""

import json
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from fasttrain.base.errors import SourceError
from fasttrain.beton_build.columns import PATH_COLUMNS, find_column, find_labels, label_text, pair_names
from fasttrain.beton_build.found import Entries, SourceOptions
from fasttrain.beton_build.labels import read_text

LINES_SUFFIXES = (".jsonl", ".ndjson")
JSON_SUFFIXES = (".json", *LINES_SUFFIXES)
LIST_KEY = "images"


def read_json_list(path: Path, options: SourceOptions) -> Entries:
    """The entries of a JSON list of objects.

    Where the objects hold a whole number as label and a name beside it (``label``, ``label_name``), the names are the
    classes and the numbers their order.

    Raises:
        SourceError: the file cannot be read, is no such list, or an object lacks a key; its number is named.
    """
    lines = path.suffix.lower() in LINES_SUFFIXES
    places, objects = _lines(path) if lines else _objects(path)
    if not objects:
        raise SourceError(f"{path} lists no image")
    for place, value in zip(places, objects, strict=True):
        if not isinstance(value, dict):
            raise SourceError(f'{path}, {_name(lines, place)} is no object such as {{"path": …}}, but {value!r:.60}')
    names = list(dict.fromkeys(chain.from_iterable(objects)))
    path_key = find_column(path, names, options.path_column, PATH_COLUMNS, "--path-column")
    label_key, name_key = find_labels(path, names, options.label_column)
    assert path_key is not None
    for place, value in zip(places, objects, strict=True):
        if not isinstance(value.get(path_key), str) or not value[path_key]:
            raise SourceError(f"{path}, {_name(lines, place)} has no path as text under {path_key!r}")
        if label_key is not None and label_key not in value:
            raise SourceError(f"{path}, {_name(lines, place)} has no {label_key!r} (null would say: unknown)")
    offered = [name for name in names if name not in (path_key, label_key, name_key)]
    labels, numbers = json_labels(path, objects, label_key, name_key)
    columns = {name: [value.get(name) for value in objects] for name in options.kept(offered)}
    return Entries([value[path_key] for value in objects], labels, numbers, columns, offered)


def json_labels(
    where: object, objects: Sequence[dict[str, Any]], label_key: str | None, name_key: str | None
) -> tuple[list[str | None], dict[str, int] | None]:
    """The labels of JSON objects as text, and the number of each class where numbers and names stand together.

    Raises:
        SourceError: a label is neither text nor a whole number, or labels contradict each other.
    """
    if label_key is None:
        return [None] * len(objects), None
    labels = _texts(where, objects, label_key)
    if name_key is None:
        return labels, None
    return pair_names(where, labels, _texts(where, objects, name_key))


def _texts(where: object, objects: Sequence[dict[str, Any]], key: str) -> list[str | None]:
    texts = []
    for place, value in enumerate(objects):
        try:
            texts.append(label_text(value.get(key)))
        except ValueError as error:
            raise SourceError(f"{where}, {_name(False, place)}: {error}") from None
    return texts


def _name(lines: bool, place: int) -> str:
    return f"line {place}" if lines else f"entry {place} (counted from 0)"


def _objects(path: Path) -> tuple[Iterable[int], list[Any]]:
    text = read_text(path)
    if not text.strip():
        raise SourceError(f"{path} is empty; it should hold a list of objects")
    found = _parsed(path, text)
    if isinstance(found, dict):
        found = found.get(LIST_KEY)
    if not isinstance(found, list):
        raise SourceError(f"{path} holds no list of objects, nor an object with such a list under {LIST_KEY!r}")
    return range(len(found)), found


def _lines(path: Path) -> tuple[Iterable[int], list[Any]]:
    numbered = [(number, line) for number, line in enumerate(read_text(path).split("\n"), 1) if line.strip()]
    return [number for number, _ in numbered], [_parsed(f"{path}, line {number}", line) for number, line in numbered]


def _parsed(where: object, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise SourceError(f"{where} is no valid JSON: {error}") from None
    except RecursionError:
        raise SourceError(f"{where} is no valid list: its JSON is nested too deep") from None
