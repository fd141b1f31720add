"""Checks a whole `.beton`: every checksum, every image decoded."""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from fasttrain.base.console import progress
from fasttrain.base.errors import BetonError, ImageError
from fasttrain.base.process import default_threads
from fasttrain.beton_build.format import MODE_JPG
from fasttrain.beton_build.mask_info import IGNORE, count_pixels
from fasttrain.beton_build.pool import ordered_map
from fasttrain.beton_build.reader import BetonReader
from fasttrain.beton_build.trailer import checksum
from fasttrain.kernels.jpeg import checked_index, native_available


@dataclass
class VerifyReport:
    """The outcome of a verification."""

    samples: int
    checksums: bool  # whether the file has checksums (FFCV's have none)
    indexed: int = 0  # images whose random-access index was compared with a new one
    bad: list[ImageError] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.bad

    def as_json(self) -> dict[str, Any]:
        """The result of ``fasttrain verify --json``."""
        return {
            "samples": self.samples,
            "ok": self.ok,
            "checksums": self.checksums,
            "indexed": self.indexed,
            "bad": [{"id": error.sample_id, "path": error.path, "error": error.reason} for error in self.bad],
        }


def verify(path: Path, workers: int | None = None) -> VerifyReport:
    """Check the structure of a file and the checksum of every sample, decode every image, and make every index anew.

    Raises:
        BetonError: the file's structure is damaged, so that its images cannot be looked at.
    """
    with BetonReader(path) as reader:
        reader.check_structure()
        report = VerifyReport(reader.num_samples, reader.checksums is not None, reader.num_indexed)
        check = partial(_check_one, reader)
        with progress("verify", reader.num_samples) as bar:
            for outcome in ordered_map(check, range(reader.num_samples), workers or default_threads(), "verify"):
                bar.advance()
                if outcome is not None:
                    report.bad.append(outcome)
        return report


def _check_one(reader: BetonReader, row: int) -> ImageError | None:
    try:
        if reader.has_images:
            _check_image(reader, row)
        _check_others(reader, row)
        _check_mask(reader, row)
    except ImageError as error:
        return error
    except BetonError as error:
        return reader.image_error(row, str(error))
    return None


def _check_image(reader: BetonReader, row: int) -> None:
    data = reader.image_bytes(row)
    if reader.checksums is not None and checksum(data) != int(reader.checksums[row]):
        raise reader.image_error(row, "its bytes are not those that were written: the checksum does not hold")
    reader.image(row)
    if reader.modes[row] == MODE_JPG:
        try:
            _, index = checked_index(data)  # decoding alone does not see all damage
        except ValueError as error:
            raise reader.image_error(row, str(error)) from None
        stored = reader.index_bytes(row)
        if stored and native_available() and (index is None or index.tobytes() != stored):
            raise reader.image_error(row, "its random-access index is not that of its stream")


def _check_others(reader: BetonReader, row: int) -> None:
    digest = xxhash.xxh3_64()
    for region in reader.other_regions(row):
        digest.update(region)
    if reader.other_checksums is not None and digest.intdigest() != int(reader.other_checksums[row]):
        raise reader.image_error(row, "its further fields are not those that were written")


def _check_mask(reader: BetonReader, row: int) -> None:
    if reader.masks is None:
        return
    counts, mask = reader.mask_pixels, reader.mask(row)
    assert counts is not None
    found = count_pixels(mask, counts.shape[1] - 1)
    if int(found.sum()) != mask.size:
        raise reader.image_error(row, f"its mask has values that are no class: {int(mask[mask != IGNORE].max())}")
    if not np.array_equal(found, counts[row]):
        raise reader.image_error(row, "its mask does not have as many pixels of each class as the file says")
