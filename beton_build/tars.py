"""Reads WebDataset tar archives in place: which members form a sample, and where the images lie in the file."""

import json
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from fasttrain.base.errors import SourceError
from fasttrain.beton_build.columns import find_column, pair_names
from fasttrain.beton_build.found import Found, SourceOptions
from fasttrain.beton_build.images import IMAGE_SUFFIXES
from fasttrain.beton_build.json_lists import json_labels
from fasttrain.beton_build.labels import shown
from fasttrain.beton_build.origins import TarMember

TAR_SUFFIX = ".tar"
LABEL_SUFFIX, JSON_SUFFIX = "cls", "json"
NAME_KEY, ID_KEY = "label_name", "id"
_KEY = re.compile(r"((?:.*/)?[^/.]+)\.([^/]+)", re.DOTALL)


@dataclass
class _Sample:
    """The members of a sample by their suffix in small letters: offset, size and name."""

    key: str
    members: dict[str, TarMember] = field(default_factory=dict)


def read_tar(path: Path, options: SourceOptions, *, ids_from_json: bool = False) -> Found:
    """The samples of an uncompressed tar archive, without unpacking it.

    By WebDataset's rule (https://github.com/webdataset/webdataset) members that follow each other and whose names are
    equal up to the first dot of the base name form a sample; that is the id. Its label is the content of ``.cls``
    (with the class's name from ``label_name`` in ``.json``, where there is one), or a column of ``.json``.

    Args:
        ids_from_json: take the ids from ``id`` in ``.json``.

    Raises:
        SourceError: the archive is compressed, damaged or cut short, a sample has no image or several, or its parts
            are scattered.
    """
    found = Found(str(path), indices=True)
    objects: list[dict[str, Any]] = []
    classes: list[str | None] = []
    try:
        with path.open("rb") as file:
            for sample in _samples(path, found):
                found.origins.append(_image_of(path, sample, options.image_suffix))
                found.ids.append(sample.key)
                classes.append(_class_of(file, sample))
                objects.append(_json_of(file, sample))
    except (tarfile.TarError, ValueError, OverflowError, EOFError) as error:
        raise SourceError(f"{path} is no tar archive, or is cut short or damaged: {error}") from None
    if not found.ids:
        raise SourceError(f"{path} holds no sample of a data set: no member has a name such as KEY.jpg")
    _take_labels(found, classes, objects, options)
    names = list(dict.fromkeys(name for value in objects for name in value))
    found.offered = [name for name in names if name not in (options.label_column, NAME_KEY)]
    if ids_from_json:
        found.offered = [name for name in found.offered if name != ID_KEY]
        found.ids = [str(value.get(ID_KEY, key)) for key, value in zip(found.ids, objects, strict=True)]
    found.columns = {name: [value.get(name) for value in objects] for name in options.kept(found.offered)}
    return found


def _take_labels(
    found: Found, classes: list[str | None], objects: list[dict[str, Any]], options: SourceOptions
) -> None:
    if options.label_column is not None:
        names = list(dict.fromkeys(name for value in objects for name in value))
        find_column(found.name, names, options.label_column, (), None)
        for key, value in zip(found.ids, objects, strict=True):
            if options.label_column not in value:
                raise SourceError(f"{found.name}: the JSON of sample {key!r} has no {options.label_column!r}")
        found.labels, found.numbers = json_labels(found.name, objects, options.label_column, None)
        return
    stated = [value.get(NAME_KEY) for value in objects]
    found.labels = classes
    if any(classes) and all(name is None or isinstance(name, str) for name in stated):
        found.labels, found.numbers = pair_names(found.name, classes, stated)


def _samples(path: Path, found: Found) -> Iterator[_Sample]:
    """The samples in the archive's order."""
    seen: set[str] = set()
    sample: _Sample | None = None
    for name, member in _members(path, found):
        parts = _KEY.fullmatch(name)
        if parts is None:
            found.ignored += 1
            continue
        key, suffix = parts[1].removeprefix("./"), parts[2].lower()
        if sample is None or key != sample.key:
            if sample is not None:
                yield sample
            if key in seen:
                raise SourceError(
                    f"{path}: the parts of sample {key!r} do not follow each other; write the archive in the order of "
                    "the names (tar --sort=name)"
                )
            seen.add(key)
            sample = _Sample(key)
        if suffix in sample.members:
            raise SourceError(f"{path} holds two members {name!r}")
        sample.members[suffix] = member
    if sample is not None:
        yield sample


def _members(path: Path, found: Found) -> Iterator[tuple[str, TarMember]]:
    """Name and place of each file in the archive; checks that its end is there."""
    with tarfile.open(path, "r:") as archive:
        while (info := archive.next()) is not None:
            archive.members.clear()  # type: ignore[attr-defined]  # it would keep them all
            if not info.isfile():
                found.ignored += not info.isdir()
                continue
            if info.issparse():
                raise SourceError(f"{path}: {info.name!r} is stored with holes; write the archive without --sparse")
            yield info.name, TarMember(path, info.offset_data, info.size, info.name)
        end = archive.offset
    with path.open("rb") as file:
        file.seek(end)
        if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise SourceError(f"{path} is cut short or damaged: no end of the archive at byte {end}")


def _image_of(path: Path, sample: _Sample, suffix: str | None) -> TarMember:
    if suffix is not None:
        image = sample.members.get(suffix.lower().lstrip("."))
        if image is None:
            raise SourceError(f"{path}: sample {sample.key!r} has no {suffix!r}, only {shown([*sample.members])}")
        return image
    images = [name for name in sample.members if f".{name.rpartition('.')[2]}" in IMAGE_SUFFIXES]
    if len(images) == 1:
        return sample.members[images[0]]
    if not images:
        raise SourceError(f"{path}: sample {sample.key!r} has no image, only {shown([*sample.members])}")
    raise SourceError(f"{path}: sample {sample.key!r} has several images: {shown(images)}; choose with --image-suffix")


def _class_of(file: IO[bytes], sample: _Sample) -> str | None:
    member = sample.members.get(LABEL_SUFFIX)
    if member is None:
        return None
    try:
        return _content(file, member).decode().strip()
    except UnicodeDecodeError:
        raise SourceError(f"{member} is no label as text") from None


def _json_of(file: IO[bytes], sample: _Sample) -> dict[str, Any]:
    """The object in ``.json``, {} if there is none."""
    member = sample.members.get(JSON_SUFFIX)
    if member is None:
        return {}
    try:
        value = json.loads(_content(file, member))
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{member} is no valid JSON: {error}") from None
    return value if isinstance(value, dict) else {}


def _content(file: IO[bytes], member: TarMember) -> bytes:
    file.seek(member.offset)
    return file.read(member.size)
