"""Makes the random-access index of a `.beton` that has none, in a file beside it."""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fasttrain.base.atomic import atomic_path
from fasttrain.base.console import progress, say
from fasttrain.base.errors import BetonError, ImageError, SourceError
from fasttrain.base.process import default_threads
from fasttrain.beton_build.describe import not_indexed
from fasttrain.beton_build.format import MODE_RAW
from fasttrain.beton_build.pool import ordered_map
from fasttrain.beton_build.reader import BetonReader
from fasttrain.beton_build.sidecar import sidecar_path, write_sidecar
from fasttrain.kernels.jpeg import checked_index, native_available
from fasttrain.kernels.jpeg_markers import index_obstacle


@dataclass
class IndexReport:
    """What the files have, and what was done.

    Attributes:
        samples: of all files.
        indexed: how many of them have an index now.
        not_indexed: how many have none, by the reason.
        bytes, image_bytes: of the indices and of the images.
        looked_at, seconds: images whose index was made, and how long that took.
        out: the files that were written.
    """

    samples: int = 0
    indexed: int = 0
    not_indexed: Counter[str] = field(default_factory=Counter)
    bytes: int = 0
    image_bytes: int = 0
    looked_at: int = 0
    seconds: float = 0.0
    out: list[Path] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """The result of ``fasttrain index --json``."""
        return {
            "samples": self.samples,
            "indexed": self.indexed,
            "not_indexed": dict(sorted(self.not_indexed.items())),
            "bytes": self.bytes,
            "image_bytes": self.image_bytes,
            "images_per_s": round(self.looked_at / self.seconds, 1) if self.seconds else 0.0,
            "out": [str(path) for path in self.out],
        }


def index_files(paths: Sequence[Path], *, workers: int | None = None, force: bool = False) -> IndexReport:
    """Give each of `paths` an index: ``FILE.beton.index``, which every reader of the file finds.

    Files that hold their index themselves, or have one beside them that is theirs, are left as they are; with `force`
    the latter is made anew. Damaged images get no index, and a line says so.

    Raises:
        SourceError: a file holds no images, the native kernels were not built, or there is a file of that name which is
            no index of this file and `force` is False.
        BetonError: a file is damaged.
    """
    if not native_available():
        raise SourceError(
            "indices are made by the native kernels, which were not built here; install a C++ compiler and libjpeg's "
            "headers, then fasttrain again"
        )
    report = IndexReport()
    for path in paths:
        if not _has_index(path, force):
            _make(path, workers or default_threads(), report)
            continue
        with BetonReader(path) as reader:
            report.indexed += reader.num_indexed
            report.not_indexed.update(not_indexed(reader))
            _add_sizes(report, reader)
    return report


def _has_index(path: Path, force: bool) -> bool:
    """Whether there is nothing to do, which is said."""
    with BetonReader(path, sidecar=False) as reader:
        if not reader.has_images:
            raise SourceError(f"{path} has no image field, so there is nothing to index")
        if reader.indexed:
            say(f"{path} holds its index already")
            return True
    place = sidecar_path(path)
    if force or not place.exists():
        return False
    try:
        with BetonReader(path) as reader:
            fits = reader.indexed
    except BetonError:
        fits = False
    if not fits:
        raise SourceError(f"{place} already exists and is no index of this file; give --force to replace it")
    say(f"{place} is there already")
    return True


def _make(path: Path, workers: int, report: IndexReport) -> None:
    started, place = time.monotonic(), sidecar_path(path)
    with BetonReader(path, sidecar=False) as reader:
        _add_sizes(report, reader)
        outcomes = ordered_map(partial(_index_one, reader), range(reader.num_samples), workers, "index")
        with atomic_path(place) as part, part.open("wb", buffering=1 << 20) as file:
            write_sidecar(file, reader.num_samples, reader.identity(), _counted(outcomes, reader, report))
        report.looked_at += reader.num_samples
    report.seconds += time.monotonic() - started
    with BetonReader(path) as reader:
        report.bytes += int(reader.index_sizes.sum())
        found = reader.num_indexed
    if found:
        report.out.append(place)
    else:
        place.unlink()
        say(f"none of the images in {path} can have an index, so no {place.name} was written")


def _counted(outcomes: Iterator[bytes | str | ImageError], reader: BetonReader, report: IndexReport) -> Iterator[bytes]:
    """The indices, empty where there is a reason for none, which is counted."""
    with progress("index", reader.num_samples) as bar:
        for outcome in outcomes:
            bar.advance()
            if isinstance(outcome, bytes):
                report.indexed += 1
                yield outcome
                continue
            if isinstance(outcome, ImageError):
                say(f"broken: {outcome}")
                outcome = f"broken: {outcome.reason}"
            report.not_indexed[outcome] += 1
            yield b""


def _index_one(reader: BetonReader, row: int) -> bytes | str | ImageError:
    """The index of an image, or why it has none."""
    if reader.modes[row] == MODE_RAW:
        return "raw"
    try:
        data = reader.image_bytes(row)
        facts, index = checked_index(data)
        size = (int(reader.widths[row]), int(reader.heights[row]))
        if (facts.width, facts.height) != size:
            raise ValueError(f"the stream is {facts.width}x{facts.height}, the file says {size[0]}x{size[1]}")
    except ImageError as error:
        return error
    except ValueError as error:
        return reader.image_error(row, str(error))
    return (index_obstacle(data) or "other") if index is None else index.tobytes()


def _add_sizes(report: IndexReport, reader: BetonReader) -> None:
    report.samples += reader.num_samples
    report.image_bytes += int(np.sum(reader.sizes))
    report.bytes += int(np.sum(reader.index_sizes))
