"""The random-access indices of a `.beton` in a file beside it (``NAME.beton.index``), for files that hold none.

    header      `HEADER`
    offsets     uint64 (N + 1,): where each sample's index starts, and where the last one ends, in this file
    xxh3        uint64 (N,): xxh3-64 of each index
    entries     the indices one after the other, each starting at a multiple of 8; of no length for images without one

It is bound to the content of its `.beton`: to the checksum of the trailer's directory, which stands for everything in
the file and costs nothing to look at. FFCV's files have no checksums; there it is the xxh3-128 of metadata and
allocation table, which hold the place and size of every image. That takes 48 bytes a sample of reading at each opening
(a tenth of a second for ten million), which a data set's fingerprint needs as well. Path and time of change would be
cheaper, but then a copy of both files would have lost its index.
"""

import mmap
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import IO

import numpy as np

from fasttrain.base.console import say
from fasttrain.base.errors import BetonError
from fasttrain.beton_build.indices import Indices
from fasttrain.beton_build.trailer import checksum

MAGIC = b"FASTINDX"
VERSION = 1
HEADER = np.dtype(
    [
        ("magic", "V8"),
        ("version", "<u4"),
        ("reserved", "<u4"),
        ("samples", "<u8"),
        ("bound_to", "V16"),
        ("length", "<u8"),  # of this file
        ("offsets_xxh3", "<u8"),
        ("xxh3_xxh3", "<u8"),
        ("checksum", "<u8"),  # xxh3-64 of the header up to here
    ]
)
_CHECKED = HEADER.fields["checksum"][1]  # type: ignore[index]
_warned: set[Path] = set()


def sidecar_path(path: Path) -> Path:
    """``photos.beton`` -> ``photos.beton.index``."""
    return path.with_name(path.name + ".index")


def _entries_start(samples: int) -> int:
    return HEADER.itemsize + 8 * (samples + 1) + 8 * samples


def write_sidecar(file: IO[bytes], samples: int, bound_to: bytes, indices: Iterable[bytes]) -> int:
    """Write the `indices` of all `samples` in their order, empty where an image has none; the bytes written.

    Args:
        bound_to: 16 bytes that stand for the content of the `.beton`.
    """
    offsets, checksums = np.zeros(samples + 1, "<u8"), np.zeros(samples, "<u8")
    offsets[0] = position = _entries_start(samples)
    file.truncate(position)
    file.seek(position)
    for row, index in enumerate(indices):
        file.write(index)
        position += len(index)
        offsets[row + 1], checksums[row] = position, checksum(index)
    header = np.zeros(1, HEADER)
    sums = (checksum(offsets.data), checksum(checksums.data))
    header[0] = (MAGIC, VERSION, 0, samples, bound_to, position, *sums, 0)
    header["checksum"] = checksum(header.tobytes()[:_CHECKED])
    file.seek(0)
    for part in (header, offsets, checksums):
        file.write(part.data)
    return position


class SidecarIndices(Indices):
    """The indices in an opened sidecar of a file of `num_samples` samples.

    Raises:
        BetonError: it is damaged, or of another version.
    """

    where = "sidecar"

    def __init__(self, path: Path, num_samples: int) -> None:
        self.path, self._num_samples = path, num_samples
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size < HEADER.itemsize:
                raise self._damaged("it is shorter than its header")
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.data = memoryview(self._map)
        header = np.frombuffer(self.data, HEADER, 1)[0]
        if header["magic"].tobytes() != MAGIC or int(header["checksum"]) != checksum(self.data[:_CHECKED]):
            raise self._damaged("the checksum of its header does not hold")
        if header["version"] != VERSION:
            raise BetonError(f"{path} is an index of version {header['version']}; this program reads {VERSION}")
        self.bound_to: bytes = header["bound_to"].tobytes()
        self.stop = self.data.nbytes
        self._samples, self._length = int(header["samples"]), int(header["length"])
        self._sums = int(header["offsets_xxh3"]), int(header["xxh3_xxh3"])

    def _damaged(self, how: str) -> BetonError:
        return BetonError(f"{self.path} is damaged: {how}; make it anew with: {_again(self.path)}")

    def check_length(self) -> None:
        """Compare the file's length with its header, and the number of samples with the `.beton`'s.

        Raises:
            BetonError: they differ.
        """
        if self._samples != self._num_samples or self._length < _entries_start(self._samples):
            raise self._damaged(f"it is about {self._samples} samples, not {self._num_samples}")
        if self._length != self.data.nbytes:
            raise self._damaged(f"it has {self.data.nbytes} bytes, not {self._length}")

    def _table(self, at: int, count: int, expected: int) -> np.ndarray:
        data = self.data[at : at + 8 * count]
        if checksum(data) != expected:
            raise self._damaged("the checksum of one of its tables does not hold")
        return np.frombuffer(data, "<u8")

    @cached_property
    def _offsets(self) -> np.ndarray:
        return self._table(HEADER.itemsize, self._num_samples + 1, self._sums[0])

    @cached_property
    def checksums(self) -> np.ndarray:
        return self._table(HEADER.itemsize + 8 * (self._num_samples + 1), self._num_samples, self._sums[1])

    @cached_property
    def sizes(self) -> np.ndarray:
        return self._offsets[1:] - self._offsets[:-1]

    def spans(self, rows: np.ndarray, image_ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        starts = self._offsets[rows]
        return starts, self._offsets[rows + 1] - starts

    def close(self) -> None:
        self.__dict__.pop("_offsets", None)
        self.__dict__.pop("checksums", None)
        del self.data
        with suppress(BufferError):  # views are held elsewhere; it goes with the last of them
            self._map.close()


def find_sidecar(path: Path, num_samples: int, bound_to: Callable[[], bytes]) -> SidecarIndices | None:
    """The indices beside the `.beton` at `path`, whose content `bound_to` tells; None when there are none.

    One that was made of another file is not used, and a line says so.

    Raises:
        BetonError: there is a sidecar, but it is damaged or of another version.
    """
    place = sidecar_path(path)
    try:
        indices = SidecarIndices(place, num_samples)
    except FileNotFoundError:
        return None
    if indices.bound_to == bound_to():
        indices.check_length()
        return indices
    indices.close()
    if place not in _warned:
        _warned.add(place)
        say(f"warning: {place} was made of another {path.name}, so it is not used; make it anew with: {_again(place)}")
    return None


def _again(place: Path) -> str:
    return f"fasttrain index --force {place.with_suffix('')}"
