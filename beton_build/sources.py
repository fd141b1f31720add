"""Finds the images to convert: folders, lists, tables, tar archives, other `.beton` files, one or several of them."""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from fasttrain.base.errors import SourceError
from fasttrain.beton_build.betons import read_beton
from fasttrain.beton_build.braces import expand_braces
from fasttrain.beton_build.columns import check_kept
from fasttrain.beton_build.folders import read_folder, read_tree
from fasttrain.beton_build.found import KEEP_ALL, RESERVED, Found, SourceOptions
from fasttrain.beton_build.images import IMAGE_SUFFIXES
from fasttrain.beton_build.json_lists import JSON_SUFFIXES, read_json_list
from fasttrain.beton_build.labels import number_labels, read_class_names, shown
from fasttrain.beton_build.listed_files import find_listed
from fasttrain.beton_build.lists import TABLE_SUFFIXES, read_ids, read_labels, read_table, read_text_list
from fasttrain.beton_build.origins import Origin
from fasttrain.beton_build.published import read_published
from fasttrain.beton_build.reader import BetonReader
from fasttrain.beton_build.tars import TAR_SUFFIX, read_tar
from fasttrain.beton_build.trailer import encode_id

PathLike = str | os.PathLike[str]
BETON_SUFFIX = ".beton"
_PACKED = {  # first bytes of what must be unpacked first
    b"PK\x03\x04": "a zip archive; unpack it and give the folder",
    b"\x1f\x8b": "compressed (gzip); decompress it first",
    b"BZh": "compressed (bzip2); decompress it first",
    b"\xfd7zXZ": "compressed (xz); decompress it first",
    b"\x28\xb5\x2f\xfd": "compressed (zstd); decompress it first",
    b"7z\xbc\xaf": "a 7z archive; unpack it and give the folder",
}


@dataclass
class SampleList:
    """The samples of a data set that is to be built, in a fixed order.

    Attributes:
        ids: unique; the path relative to the source's root, with forward slashes.
        origins: where each image lies.
        labels: (N,) int64, -1 where unknown.
        class_names: name of each label; empty when nothing is labelled.
        columns: further values of each sample by column name, as text, numbers or JSON values; None where missing.
        ignored: number of files in folders and archives that are not images.
        missing: listed paths of images that do not exist (their samples are among the others).
    """

    ids: list[str]
    origins: list[Origin]
    labels: np.ndarray
    class_names: list[str]
    ignored: int = 0
    columns: dict[str, list[Any]] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.ids)

    def fingerprint(self) -> str:
        """32 hexadecimal digits that depend on ids, labels, class names and further columns."""
        digest = xxhash.xxh3_128(repr(self.class_names).encode("utf-8", "surrogateescape"))
        for sample_id in self.ids:
            digest.update(encode_id(sample_id) + b"\0")
        digest.update(np.ascontiguousarray(self.labels).tobytes())
        for name, values in self.columns.items():
            digest.update(f"\0{name!r}\0".encode())
            for value in values:
                digest.update(value.tobytes() if isinstance(value, np.ndarray) else repr(value).encode())
                digest.update(b"\0")
        return digest.hexdigest()

    def take(self, rows: Sequence[int]) -> "SampleList":
        """Only the samples of `rows`; all classes stay."""
        return SampleList(
            [self.ids[row] for row in rows],
            [self.origins[row] for row in rows],
            self.labels[np.asarray(rows, np.int64)],
            self.class_names,
            self.ignored,
            {name: [values[row] for row in rows] for name, values in self.columns.items()},
        )

    def prefixed(self, prefix: str) -> "SampleList":
        """The same samples, all ids starting with ``PREFIX/``."""
        return replace(self, ids=[f"{prefix}/{sample_id}" for sample_id in self.ids])


def read_source(
    source: PathLike | Sequence[PathLike],
    *,
    classes: PathLike | None = None,
    labels: PathLike | None = None,
    root: PathLike | None = None,
    path_column: str | None = None,
    label_column: str | None = None,
    image_suffix: str | None = None,
    ids: PathLike | None = None,
    keep: Sequence[str] = (),
    labelled: bool = True,
) -> SampleList:
    """List the samples of one source, or of several joined in the given order.

    A source is

    - a folder with one sub-folder a class, or a plain folder, which is unlabelled;
    - a text list of ``path label`` lines, a table (``.csv``, ``.tsv``) with a header, or a list in JSON (``.json``,
      ``.jsonl``), whose paths and labels stand in columns of the usual names;
    - a WebDataset archive (``.tar``), several as ``x-{000..012}.tar``, or a folder as ``--format webdataset`` writes;
    - another ``.beton``, whose images are taken as they are stored there;
    - a folder with ``labels.csv`` and ``Images/``, or a folder of such folders, whose names then start the ids.

    Whole numbers as labels are class indices, except as names of folders. Several sources may state classes (by numbers
    with names, as a `.beton` does): while they agree, their order is kept. Otherwise classes are joined by name and
    numbered anew in the sorted order of the names, as folders are; `classes` imposes another order. The ids of several
    folders start with the folder's name, those of several lists of the same file name with their folder's name, and
    those of several archives with the archive's name if their keys repeat.

    Args:
        classes: a file of class names, one a line, or a `.beton` with the same classes: their order gives the labels.
        labels: a table (``id,label``) whose labels replace those of the source.
        root: what relative paths of lists and tables are relative to (their own folder by default).
        path_column, label_column: columns of a table, keys of JSON objects (found by their usual names by default).
        image_suffix: suffix of the images in archives whose samples hold several.
        ids: a file of ids, one a line, or a table with a column of them: only these samples, in the sources' order.
            Classes are numbered before.
        keep: further columns of tables, JSON objects and `.beton` files to keep, ("all",) for every one.
        labelled: False takes no labels, and all images under a folder, whatever its sub-folders are called.

    Raises:
        SourceError: a source is missing, empty or contradictory; one sentence that names the first offenders.
        BetonError: a `.beton` among the sources is damaged.
    """
    sources = [source] if isinstance(source, str | os.PathLike) else list(source)
    if not sources:
        raise SourceError("no source was given")
    options = SourceOptions(
        Path(root) if root else None, path_column, label_column, image_suffix, tuple(keep), labelled
    )
    parts = _read_all(_expanded(sources), options, strict=classes is None and labels is None)
    names = _imposed_names(Path(classes)) if classes is not None else None
    wanted = [name for name in keep if name != KEEP_ALL]
    check_kept(wanted, chain.from_iterable(part.offered for part in parts), RESERVED)
    if not labelled:
        for part in parts:
            part.forget_labels()
    samples = _joined(parts)
    _refuse_duplicates(samples.ids)
    if labels is not None:
        parts = [_replacement(samples.ids, Path(labels), options), *_stated_classes(parts)]
    samples.labels, samples.class_names = number_labels(parts, names)
    return samples if ids is None else _chosen(samples, Path(ids))


def refuse_one_class(samples: SampleList) -> None:
    """Raise a SourceError if all samples are of one class: mostly the folder above or below was meant."""
    if len(samples.class_names) == 1:
        raise SourceError(
            f"there is only one class, {samples.class_names[0]!r}, and a classifier needs two; give the folder above "
            "it, or, for a part of a data set, name all its classes with --classes"
        )


def _expanded(sources: Sequence[PathLike]) -> list[Path]:
    """The sources, patterns in braces replaced by the files that they stand for."""
    return [
        Path(name)
        for entry in (os.fspath(source) for source in sources)
        for name in ([entry] if "{" not in entry or Path(entry).exists() else expand_braces(entry))
    ]


def _read_all(sources: list[Path], options: SourceOptions, strict: bool) -> list[Found]:
    """All sources one by one, their ids told apart by prefixes."""
    repeated = Counter(entry.name for entry in sources)
    parts: list[Found] = []
    archives: list[tuple[Path, Found]] = []
    for entry in sources:
        try:
            found = _read_one(entry, options, strict)
            is_folder = entry.is_dir()
        except OSError as error:
            raise SourceError(f"{error.filename or entry} cannot be read: {error.strerror or error}") from None
        prefix = None
        if is_folder and len(sources) > 1:
            prefix = entry.resolve().name
        elif repeated[entry.name] > 1 and options.root is None and _is_list(entry):
            prefix = entry.absolute().parent.name
        for part in found:
            if prefix:
                part.prefix_ids(prefix)
        parts += found
        archives += [(entry, part) for part in found if entry.suffix.lower() == TAR_SUFFIX and not is_folder]
    keys = list(chain.from_iterable(part.ids for _, part in archives))
    if len(set(keys)) < len(keys):
        stems = {entry.stem for entry, _ in archives}
        for entry, part in archives:
            folder = "" if len(stems) == len(archives) else f"{entry.absolute().parent.name}/"
            part.prefix_ids(folder + entry.stem)
    return parts


def _is_list(path: Path) -> bool:
    return path.suffix.lower() not in (TAR_SUFFIX, BETON_SUFFIX)


def _read_one(source: Path, options: SourceOptions, strict: bool) -> list[Found]:
    """One source, part by part.

    Raises:
        OSError: a folder or file cannot be read.
    """
    if source.is_dir():
        if not options.labelled:
            return [read_tree(source)]
        return read_published(source, options) or [read_folder(source, strict)]
    if not source.exists():
        raise SourceError(f"{source}: no such file or folder")
    suffix = source.suffix.lower()
    if suffix == BETON_SUFFIX:
        return [read_beton(source, options)]
    if suffix in IMAGE_SUFFIXES:
        raise SourceError(f"{source} is neither a folder of images nor a list of them")
    _refuse_packed(source)
    if suffix == TAR_SUFFIX:
        return [read_tar(source, options)]
    if suffix in JSON_SUFFIXES:
        entries = read_json_list(source, options)
    elif suffix in TABLE_SUFFIXES:
        entries = read_table(source, options)
    else:
        entries = read_text_list(source)
    return [find_listed(source, entries, options.root or source.parent)]


def _refuse_packed(path: Path) -> None:
    with path.open("rb") as file:
        start = file.read(8)
    for magic, what in _PACKED.items():
        if start.startswith(magic):
            raise SourceError(f"{path} is {what}")


def _joined(parts: Sequence[Found]) -> SampleList:
    """One part after the other, not labelled yet; columns that a part lacks are None."""
    columns = list(dict.fromkeys(chain.from_iterable(part.columns for part in parts)))
    return SampleList(
        list(chain.from_iterable(part.ids for part in parts)),
        list(chain.from_iterable(part.origins for part in parts)),
        np.zeros(0, np.int64),
        [],
        sum(part.ignored for part in parts),
        {
            name: list(chain.from_iterable(part.columns.get(name) or [None] * len(part.ids) for part in parts))
            for name in columns
        },
        list(chain.from_iterable(part.missing for part in parts)),
    )


def _imposed_names(path: Path) -> list[str]:
    if path.suffix.lower() != BETON_SUFFIX:
        return read_class_names(path)
    with BetonReader(path) as reader:
        names = list(reader.class_names or ())
    if not names:
        raise SourceError(f"{path} names no classes; give a file of names, one a line")
    return names


def _replacement(ids: list[str], path: Path, options: SourceOptions) -> Found:
    """The labels that the table in `path` gives to `ids`; None for those that it does not list."""
    entries = read_labels(path, options)
    table = dict(zip(entries.paths, entries.labels, strict=True))
    _refuse_strangers(table, set(ids), f"{path} labels")
    labels = [table.get(sample_id) for sample_id in ids]
    return Found(str(path), ids, labels=labels, numbers=entries.numbers, indices=True)


def _stated_classes(parts: Sequence[Found]) -> list[Found]:
    """The classes that sources state, without their samples."""
    return [Found(part.name, numbers=part.numbers) for part in parts if part.numbers]


def _chosen(samples: SampleList, path: Path) -> SampleList:
    """The samples whose ids `path` lists."""
    wanted = set(read_ids(path))
    _refuse_strangers(wanted, set(samples.ids), f"{path} names")
    return samples.take([row for row, sample_id in enumerate(samples.ids) if sample_id in wanted])


def _refuse_strangers(ids: Iterable[str], known: set[str], what: str) -> None:
    strangers = [sample_id for sample_id in ids if sample_id not in known]
    if strangers:
        raise SourceError(f"{what} {len(strangers)} ids that no source holds: {shown(sorted(strangers))}")


def _refuse_duplicates(ids: list[str]) -> None:
    if len(set(ids)) < len(ids):
        repeated = [sample_id for sample_id, count in Counter(ids).items() if count > 1]
        raise SourceError(f"{len(repeated)} samples are listed more than once: {shown(repeated)}")
