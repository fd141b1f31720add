"""Finds the images to convert: class-per-folder trees, plain folders, text lists, CSV files, one or several of them."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from fasttrain.base.errors import SourceError
from fasttrain.beton_build import labels as label_rules
from fasttrain.beton_build.images import IMAGE_SUFFIXES
from fasttrain.beton_build.lists import ListOptions, read_labels, read_list
from fasttrain.beton_build.origins import Origin
from fasttrain.beton_build.trailer import encode_id


@dataclass
class SampleList:
    """The samples of a data set that is to be built, in a fixed order.

    Attributes:
        ids: unique; the path relative to the source's root, with forward slashes.
        origins: where each image lies.
        labels: (N,) int64, -1 where unknown.
        class_names: name of each label; empty when nothing is labelled.
        columns: further values of each sample by column name, as text, numbers or JSON values; None where missing.
        ignored: number of files in folders that are not images.
    """

    ids: list[str]
    origins: list[Origin]
    labels: np.ndarray
    class_names: list[str]
    ignored: int = 0
    columns: dict[str, list[Any]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    def fingerprint(self) -> str:
        """32 hexadecimal digits that depend on ids, labels and class names."""
        digest = xxhash.xxh3_128(repr(self.class_names).encode("utf-8", "surrogateescape"))
        for sample_id in self.ids:
            digest.update(encode_id(sample_id) + b"\0")
        digest.update(np.ascontiguousarray(self.labels).tobytes())
        return digest.hexdigest()


@dataclass
class _Found:
    """What one source yields, its labels still as text."""

    ids: list[str] = field(default_factory=list)
    origins: list[Origin] = field(default_factory=list)
    labels: list[str | None] = field(default_factory=list)
    ignored: int = 0
    integers_are_indices: bool = False


def read_source(
    source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    classes: str | os.PathLike[str] | None = None,
    labels: str | os.PathLike[str] | None = None,
    root: str | os.PathLike[str] | None = None,
    path_column: str | None = None,
    label_column: str | None = None,
) -> SampleList:
    """List the samples of one source, or of several joined in the given order.

    A folder with sub-folders is a tree of one folder a class; a folder without is a plain folder, unlabelled. A
    ``.csv`` or ``.tsv`` file is a table with a header, any other file a text list of ``path label`` lines. In lists
    and tables, labels that are all whole numbers are class indices. The ids of several folders start with the
    folder's name.

    Args:
        classes: a file of class names, one a line: their order gives the labels.
        labels: a table (``id,label``) whose labels replace those of the source.
        root: what relative paths of lists and tables are relative to (their own folder by default).
        path_column, label_column: columns of a table (found by their usual names by default).

    Raises:
        SourceError: a source is missing, empty or contradictory; one sentence that names the first offenders.
    """
    sources = [source] if isinstance(source, str | os.PathLike) else list(source)
    if not sources:
        raise SourceError("no source was given")
    options = ListOptions(Path(root) if root else None, path_column, label_column)
    folders = [Path(entry) for entry in sources if Path(entry).is_dir()]
    joined = _Found()
    for entry in map(Path, sources):
        prefix = f"{entry.resolve().name}/" if len(sources) > 1 and entry in folders else ""
        found = _read_one(entry, options, strict=classes is None and labels is None)
        joined.ids += [prefix + sample_id for sample_id in found.ids]
        joined.origins += found.origins
        joined.labels += found.labels
        joined.ignored += found.ignored
        joined.integers_are_indices |= found.integers_are_indices
    _refuse_duplicates(joined.ids)
    if labels is not None:
        joined.labels = _replaced_labels(joined.ids, Path(labels), options)
        joined.integers_are_indices = True
    names = label_rules.read_class_names(Path(classes)) if classes is not None else None
    numbers, class_names = label_rules.number_labels(joined.ids, joined.labels, names, joined.integers_are_indices)
    return SampleList(joined.ids, joined.origins, numbers, class_names, joined.ignored)


def _read_one(source: Path, options: ListOptions, strict: bool) -> _Found:
    if source.is_dir():
        return _read_folder(source, strict)
    if not source.exists():
        raise SourceError(f"{source}: no such file or folder")
    if source.suffix.lower() in IMAGE_SUFFIXES or source.suffix == ".beton":
        raise SourceError(f"{source} is neither a folder of images nor a list of them")
    root = options.root or source.parent
    entries = read_list(source, options)
    if not entries:
        raise SourceError(f"{source} lists no image")
    paths = [root / path for path, _ in entries]
    if not any(path.exists() for path in paths):
        raise SourceError(
            f"none of the {len(paths)} images in {source} exists, as {paths[0]}: "
            f"paths are taken relative to {root}; give another folder with --root"
        )
    ids = [_list_id(path, root) for path, _ in entries]
    return _Found(ids, list(paths), [label for _, label in entries], integers_are_indices=True)


def _list_id(path: str, root: Path) -> str:
    """The listed path, relative to `root` where it lies inside, with forward slashes."""
    if os.path.isabs(path):
        try:
            path = str(Path(path).relative_to(root.absolute()))
        except ValueError:
            return Path(path).as_posix()
    return Path(os.path.normpath(path)).as_posix()


def _read_folder(root: Path, strict: bool) -> _Found:
    found = _Found()
    empty: list[str] = []
    top_images = 0
    for name, is_folder in _entries(root):
        if not is_folder:
            top_images += _add_file(found, root / name, name, None)
            continue
        before = len(found.ids)
        for relative in _walk(root / name, ()):
            _add_file(found, root / name / relative, f"{name}/{relative}", name)
        if len(found.ids) == before:
            empty.append(name)
    if not found.ids:
        raise SourceError(f"{root} holds no image (known suffixes: {' '.join(sorted(IMAGE_SUFFIXES))})")
    if top_images and top_images < len(found.ids):
        raise SourceError(
            f"{root} holds {top_images} images beside its class folders; "
            "move them into a folder of their class, or list the wanted ones in a file"
        )
    if empty and not top_images and strict:
        raise SourceError(
            f"class folder without an image in {root}: {label_rules.shown(empty)}; remove it, or name the classes with "
            "--classes"
        )
    return found


def _add_file(found: _Found, path: Path, sample_id: str, label: str | None) -> bool:
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        found.ignored += 1
        return False
    found.ids.append(sample_id)
    found.origins.append(path)
    found.labels.append(label)
    return True


def _entries(folder: Path) -> list[tuple[str, bool]]:
    """(name, is a folder) of what lies in `folder`, sorted by name; hidden entries left out."""
    with os.scandir(folder) as entries:
        return sorted((entry.name, entry.is_dir()) for entry in entries if not entry.name.startswith("."))


def _walk(folder: Path, ancestors: tuple[str, ...]) -> Iterator[str]:
    """Relative paths of all files under `folder`, sorted; links are followed, but not in a circle."""
    real = os.path.realpath(folder)
    if real in ancestors:
        return
    for name, is_folder in _entries(folder):
        if is_folder:
            yield from (f"{name}/{path}" for path in _walk(folder / name, (*ancestors, real)))
        else:
            yield name


def _replaced_labels(ids: list[str], path: Path, options: ListOptions) -> list[str | None]:
    """The labels that the table in `path` gives to `ids`; None for those that it does not list."""
    table = read_labels(path, options)
    known = set(ids)
    strangers = [sample_id for sample_id in table if sample_id not in known]
    if strangers:
        raise SourceError(f"{path} labels {len(strangers)} ids that no source holds: {label_rules.shown(strangers)}")
    return [table.get(sample_id) for sample_id in ids]


def _refuse_duplicates(ids: list[str]) -> None:
    if len(set(ids)) < len(ids):
        repeated = [sample_id for sample_id, count in Counter(ids).items() if count > 1]
        raise SourceError(f"{len(repeated)} samples are listed more than once: {label_rules.shown(repeated)}")
