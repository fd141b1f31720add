"""Joins `.beton` files to one, region by region: nothing is decoded."""

import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from fasttrain.base.console import progress
from fasttrain.base.errors import SourceError
from fasttrain.beton_build.labels import shown
from fasttrain.beton_build.mask_info import MAX_CLASSES, MaskInfo, count_pixels
from fasttrain.beton_build.reader import BetonReader
from fasttrain.beton_build.trailer import checksum
from fasttrain.beton_build.values import EncodedImage, EncodedMask, Value
from fasttrain.beton_build.writer import BetonWriter


def merge(sources: Sequence[Path], out: Path, *, force: bool = False) -> dict[str, Any]:
    """Write the samples of `sources`, one file after the other, to `out`.

    The shards of a build, merged in their order, have the content of the unsharded file: ids, labels, bytes, order.
    Files without string ids (FFCV's) get ``STEM/ROW``. Every image's checksum is compared on the way.

    Returns:
        samples, classes, bytes, sources and images_per_s.

    Raises:
        SourceError: the files do not fit together, an id occurs twice, or `out` exists and `force` is False.
        BetonError, ImageError: a source is damaged.
    """
    _check_names(sources, out, force)
    started = time.monotonic()
    with ExitStack() as stack:
        readers = [stack.enter_context(BetonReader(path)) for path in sources]
        _check_alike(readers)
        ids = [_ids(reader) for reader in readers]
        _refuse_duplicates(ids)
        total = sum(map(len, ids))
        writer = stack.enter_context(
            BetonWriter(
                out,
                total,
                readers[0].fields,
                class_names=readers[0].class_names,
                expected_bytes=sum(reader.num_bytes for reader in readers),
                info=_common_info(readers),
            )
        )
        with progress("merge", total) as bar:
            for reader, names in zip(readers, ids, strict=True):
                for row, name in enumerate(names):
                    writer.add(name, _values(reader, row), reader.original(row))
                    bar.advance()
    return {
        "out": str(out),
        "samples": total,
        "classes": len(readers[0].class_names or []),
        "bytes": out.stat().st_size,
        "sources": len(sources),
        "images_per_s": round(total / max(time.monotonic() - started, 1e-9), 1),
    }


def _check_names(sources: Sequence[Path], out: Path, force: bool) -> None:
    if out.suffix != ".beton":
        raise SourceError(f"the last argument names the file to write and must end in .beton, not {out}")
    if out.exists() and not force:
        raise SourceError(f"{out} already exists; give --force to replace it")
    if out.resolve() in {path.resolve() for path in sources}:
        raise SourceError(f"{out} is one of the files to merge; write to another name")


def _check_alike(readers: Sequence[BetonReader]) -> None:
    first = readers[0]
    for reader in readers[1:]:
        if reader.fields != first.fields:
            theirs, ours = (", ".join(field.describe() for field in each.fields) for each in (reader, first))
            raise SourceError(f"{reader.path} has other fields than {first.path}: {theirs} against {ours}")
        if reader.class_names != first.class_names:
            raise SourceError(
                f"{reader.path} and {first.path} have different classes; build them with the same --classes file"
            )
        if reader.masks != first.masks:
            raise SourceError(
                f"{reader.path} and {first.path} describe their masks differently; build them with the same "
                "--mask-classes or --palette file"
            )


def _ids(reader: BetonReader) -> list[str]:
    names = reader.ids[:]
    return names if reader.has_trailer else [f"{reader.path.stem}/{name}" for name in names]


def _refuse_duplicates(ids: Sequence[Sequence[str]]) -> None:
    counts = Counter(name for names in ids for name in names)
    repeated = [name for name, count in counts.items() if count > 1]
    if repeated:
        raise SourceError(f"{len(repeated)} ids occur more than once in the files to merge: {shown(repeated)}")


def _values(reader: BetonReader, row: int) -> list[Value]:
    """All values of a sample, the bytes of its first image and of its index compared with their checksums."""
    values = [reader.value(row, field.name) for field in reader.fields]
    if reader.masks is not None:
        _take_mask(reader, row, values, reader.masks)
    column = next((i for i, value in enumerate(values) if isinstance(value, EncodedImage)), None)
    if column is None:
        return values
    image = cast(EncodedImage, values[column])
    if reader.checksums is not None and checksum(image.data) != int(reader.checksums[row]):
        raise reader.image_error(row, "its bytes are not those that were written: the checksum does not hold")
    values[column] = replace(image, index=reader.index_bytes(row))
    return values


def _take_mask(reader: BetonReader, row: int, values: list[Value], masks: MaskInfo) -> None:
    mask = reader.mask(row)
    counts = count_pixels(mask, MAX_CLASSES if masks.classes is None else len(masks.classes))
    column = next(index for index, field in enumerate(reader.fields) if field.name == masks.field)
    values[column] = EncodedMask(mask.tobytes(), mask.shape[1], mask.shape[0], counts)


def _common_info(readers: Sequence[BetonReader]) -> dict[str, Any]:
    """What all sources say of their build; for the shards of one build, what the unsharded file would say."""
    infos = [dict(reader.build_info) for reader in readers]
    for info in infos:
        for key in ("format", "samples", "regions", "class_names", "original_kinds", "complete"):
            info.pop(key, None)
        if isinstance(info.get("options"), dict):
            info["options"] = {**info["options"], "shard": None}
    return {key: value for key, value in infos[0].items() if all(info.get(key) == value for info in infos)}
