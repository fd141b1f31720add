"""The images that a loader reads: one or several `.beton` files, or a plain folder or list."""

import bisect
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import xxhash

from fasttrain.base.errors import ImageError, LoaderError
from fasttrain.beton_build.images import decode_rgb, decoded_size
from fasttrain.beton_build.reader import BetonReader
from fasttrain.beton_build.sources import read_source

T = TypeVar("T")
Data = str | Path | Sequence[str | Path]


class ImageDataset(ABC):
    """Samples numbered 0 … N-1.

    Attributes:
        name: what to call it in messages.
        num_samples: N.
        labels: (N,) int64, -1 where unknown.
        keys: (N,) uint64: what each sample's randomness is keyed by.
        class_names: names of the labels, None if unknown.
        fingerprint: changes with the samples, their order or their content.
    """

    name: str
    num_samples: int
    labels: np.ndarray
    keys: np.ndarray
    class_names: list[str] | None
    fingerprint: str

    @abstractmethod
    def sizes(self, rows: np.ndarray) -> np.ndarray:
        """(n, 2) int64: width and height in pixels of the images of `rows`."""

    @abstractmethod
    def string_ids(self, rows: np.ndarray) -> list[str]:
        """The string ids of `rows`."""

    @abstractmethod
    def decode(self, row: int) -> np.ndarray:
        """Pixels of an image, (H, W, 3) uint8 RGB.

        Raises:
            ImageError: it cannot be decoded.
        """

    def close(self) -> None:  # noqa: B027 (most kinds hold nothing open)
        """Release files."""


class BetonDataset(ImageDataset):
    """A `.beton` file."""

    def __init__(self, path: str | Path) -> None:
        self._reader = BetonReader(path)
        self.name = str(path)
        self.num_samples = self._reader.num_samples
        self.labels = self._reader.labels
        self.keys = self._reader.keys
        self.class_names = self._reader.class_names
        self.fingerprint = self._reader.fingerprint

    def sizes(self, rows: np.ndarray) -> np.ndarray:
        return np.stack([self._reader.widths[rows], self._reader.heights[rows]], 1).astype(np.int64)

    def string_ids(self, rows: np.ndarray) -> list[str]:
        return self._reader.ids.take(rows)

    def decode(self, row: int) -> np.ndarray:
        return self._reader.image(row)

    def close(self) -> None:
        self._reader.close()


class FolderDataset(ImageDataset):
    """Image files as they lie: class folders, a flat folder, or a list."""

    def __init__(self, path: str | Path) -> None:
        source = read_source(path)
        self.name = str(path)
        self._ids, self._paths = source.ids, source.paths
        self.num_samples = len(self._ids)
        self.labels = source.labels
        self.keys = np.array([xxhash.xxh3_64_intdigest(name.encode()) for name in self._ids], np.uint64)
        self.class_names = source.class_names or None
        digest = xxhash.xxh3_128(repr(self.class_names).encode())
        for name, file, label in zip(self._ids, self._paths, self.labels, strict=True):
            digest.update(f"{name}\0{file.stat().st_size}\0{label}\n".encode())
        self.fingerprint = digest.hexdigest()

    def sizes(self, rows: np.ndarray) -> np.ndarray:
        return np.array([self._read(decoded_size, row) for row in rows], np.int64).reshape(-1, 2)

    def string_ids(self, rows: np.ndarray) -> list[str]:
        return [self._ids[row] for row in rows]

    def decode(self, row: int) -> np.ndarray:
        return self._read(decode_rgb, row)

    def _read(self, read: Callable[[Path], T], row: int) -> T:
        try:
            return read(self._paths[row])
        except (ValueError, OSError) as error:
            raise ImageError(self._ids[row], self._paths[row], str(error)) from None


class JoinedDataset(ImageDataset):
    """Several data sets one after the other. They must have the same classes in the same order."""

    def __init__(self, parts: Sequence[ImageDataset]) -> None:
        self._parts = list(parts)
        first = self._parts[0]
        for part in self._parts[1:]:
            if part.class_names != first.class_names:
                raise LoaderError(
                    f"{first.name} and {part.name} have different classes, so they cannot be read as one data set; "
                    "build them with the same --classes file"
                )
        self.name = " + ".join(part.name for part in self._parts)
        self._starts = np.cumsum([0, *(part.num_samples for part in self._parts)]).tolist()
        self.num_samples = self._starts[-1]
        self.labels = np.concatenate([part.labels for part in self._parts])
        self.keys = np.concatenate([part.keys for part in self._parts])
        self.class_names = first.class_names
        self.fingerprint = xxhash.xxh3_128_hexdigest("".join(part.fingerprint for part in self._parts).encode())

    def _locate(self, row: int) -> tuple[ImageDataset, int]:
        part = bisect.bisect_right(self._starts, row) - 1
        return self._parts[part], row - self._starts[part]

    def sizes(self, rows: np.ndarray) -> np.ndarray:
        result = np.empty((len(rows), 2), np.int64)
        for part, start, end in zip(self._parts, self._starts, self._starts[1:], strict=False):
            inside = (rows >= start) & (rows < end)
            if inside.any():
                result[inside] = part.sizes(rows[inside] - start)
        return result

    def string_ids(self, rows: np.ndarray) -> list[str]:
        located = (self._locate(int(row)) for row in rows)
        return [part.string_ids(np.array([local]))[0] for part, local in located]

    def decode(self, row: int) -> np.ndarray:
        part, local = self._locate(row)
        return part.decode(local)

    def close(self) -> None:
        for part in self._parts:
            part.close()


def open_dataset(data: Data) -> ImageDataset:
    """Open a `.beton` file, a folder or list of images, or several of these as one data set.

    Raises:
        LoaderError: nothing given, or the parts have different classes.
        BetonError, SourceError: a part cannot be read.
    """
    if isinstance(data, str | Path):
        return BetonDataset(data) if Path(data).suffix == ".beton" else FolderDataset(data)
    parts = [open_dataset(part) for part in data]
    if not parts:
        raise LoaderError("no data set is named")
    return parts[0] if len(parts) == 1 else JoinedDataset(parts)
