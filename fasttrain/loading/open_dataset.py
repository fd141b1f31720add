"""Data sets to load from: a `.beton` file, a folder or list of images, or several of these as one."""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import xxhash

from fasttrain.base.errors import ImageError, LoaderError
from fasttrain.beton_build.format import MODE_RAW
from fasttrain.beton_build.mask_info import MaskInfo
from fasttrain.beton_build.origins import BetonImage, Origin, TarMember, decode_origin, decoded_size, stored_bytes
from fasttrain.beton_build.reader import BetonReader
from fasttrain.beton_build.sources import read_source
from fasttrain.beton_build.trailer import encode_id, sample_key
from fasttrain.kernels.loading import JPEG, JPEG_FILE, OTHER, RAW, Sources, gather, stored_elsewhere
from fasttrain.loading.dataset import ImageDataset
from fasttrain.loading.randomness import distinct_keys

T = TypeVar("T")
FILES_A_BLOCK = 64  # single files that count as one stretch of storage
PART_BITS = 40  # block numbers of a joined data set: the part above these bits, the block within the part below
_JPEG_NAME = re.compile(r"\.(jpe?g|jpe|jfif)$", re.IGNORECASE)  # what these files are is seen when they are read
Data = str | Path | Sequence[str | Path]


class BetonDataset(ImageDataset):
    """A `.beton` file."""

    def __init__(self, path: str | Path) -> None:
        self._reader = BetonReader(path)
        if not self._reader.has_images:
            self._reader.close()
            raise LoaderError(f"{path} has no image field, so nothing can be loaded from it")
        self.name = str(path)
        self.num_samples = self._reader.num_samples
        self.labels = self._reader.labels
        self.keys = self._reader.keys
        self.class_names = self._reader.class_names
        self.fingerprint = self._reader.fingerprint
        self.masks = self._reader.masks

    def sizes(self, rows: np.ndarray) -> np.ndarray:
        return np.stack([self._reader.widths[rows], self._reader.heights[rows]], 1).astype(np.int64)

    def blocks(self, rows: np.ndarray) -> np.ndarray:
        return (self._reader.offsets[rows] // np.uint64(self._reader.page_size)).astype(np.int64)

    def stored_bytes(self, rows: np.ndarray) -> np.ndarray:
        return self._reader.sizes[rows].astype(np.int64)

    def are_raw(self, rows: np.ndarray) -> np.ndarray:
        return self._reader.modes[rows] == MODE_RAW

    def are_indexed(self, rows: np.ndarray) -> np.ndarray:
        if not self._reader.indexed:
            return super().are_indexed(rows)
        return self._reader.index_regions(rows)[2] > 0

    def string_ids(self, rows: np.ndarray) -> list[str]:
        return self._reader.ids.take(rows)

    def column(self, name: str) -> np.ndarray:
        return self._reader.column(name)

    def decode(self, row: int) -> np.ndarray:
        return self._reader.image(row)

    def mask(self, row: int) -> np.ndarray:
        return super().mask(row) if self.masks is None else self._reader.mask(row)

    def mask_pixels(self) -> np.ndarray:
        pixels = self._reader.mask_pixels
        return super().mask_pixels() if pixels is None else pixels

    def stored(self, rows: np.ndarray) -> Sources:
        offsets, lengths, sound = self._reader.image_regions(rows)
        kinds = np.where(self._reader.modes[rows] == MODE_RAW, RAW, JPEG)
        buffers, index = [self._reader.data], None
        if self._reader.indexed:
            buffer, *places = self._reader.index_regions(rows)
            buffers.append(buffer)
            index = np.stack([np.ones(len(rows), np.int64), *places], 1)
        return Sources(
            stored=np.where(sound, kinds, OTHER).astype(np.uint8),  # decode() says what is wrong with the others
            buffers=buffers,
            buffer=np.zeros(len(rows), np.int64),
            offsets=offsets,
            lengths=lengths,
            paths=[None] * len(rows),
            sizes=self.sizes(rows),
            index=index,
        )

    def image_error(self, row: int, reason: str) -> ImageError:
        return self._reader.image_error(row, reason)

    def close(self) -> None:
        self._reader.close()


class FolderDataset(ImageDataset):
    """Image files as they lie: class folders, a flat folder, or a list."""

    def __init__(self, path: str | Path) -> None:
        source = read_source(path)
        self.name = str(path)
        self._ids, self._origins = source.ids, source.origins
        self.num_samples = len(self._ids)
        self.labels = source.labels
        self.keys = np.fromiter((sample_key(name) for name in self._ids), np.uint64, self.num_samples)
        self.class_names = source.class_names or None
        self._sizes = np.zeros((self.num_samples, 2), np.int64)  # read when first asked for; 0 = not yet
        self._bytes = np.fromiter(map(stored_bytes, self._origins), np.int64, self.num_samples)
        digest = xxhash.xxh3_128(source.fingerprint().encode())
        for name, size in zip(self._ids, self._bytes.tolist(), strict=True):
            digest.update(encode_id(name) + f"\0{size}\n".encode())
        self.fingerprint = digest.hexdigest()

    def sizes(self, rows: np.ndarray) -> np.ndarray:
        for row in rows[self._sizes[rows, 0] == 0].tolist():
            self._sizes[row] = self._read(decoded_size, row)
        return self._sizes[rows]

    def blocks(self, rows: np.ndarray) -> np.ndarray:
        return rows // FILES_A_BLOCK

    def stored_bytes(self, rows: np.ndarray) -> np.ndarray:
        return self._bytes[rows]

    def string_ids(self, rows: np.ndarray) -> list[str]:
        return [self._ids[row] for row in rows]

    def column(self, name: str) -> np.ndarray:
        raise LoaderError(f"{self.name} is no .beton, so it has no field {name!r}; build one with --keep {name}")

    def decode(self, row: int) -> np.ndarray:
        pixels = self._read(decode_origin, row)
        height, width = pixels.shape[:2]
        planned_width, planned_height = self._sizes[row].tolist()
        if planned_width and (width, height) != (planned_width, planned_height):
            raise self.image_error(row, f"it is {width}x{height}, but was {planned_width}x{planned_height} before")
        return pixels

    def stored(self, rows: np.ndarray) -> Sources:
        sources = stored_elsewhere(len(rows))
        paths: list[bytes | None] = list(sources.paths)
        for position, row in enumerate(rows.tolist()):
            origin = self._origins[row]
            if isinstance(origin, BetonImage) or not _JPEG_NAME.search(str(origin)):
                continue
            if isinstance(origin, TarMember):
                if not origin.size:  # which would stand for all of the archive
                    continue
                paths[position] = os.fsencode(origin.tar)
                sources.offsets[position], sources.lengths[position] = origin.offset, origin.size
            else:
                paths[position] = os.fsencode(origin)
            sources.stored[position] = JPEG_FILE
        return replace(sources, paths=paths, sizes=self.sizes(rows))

    def image_error(self, row: int, reason: str) -> ImageError:
        return ImageError(self._ids[row], str(self._origins[row]), reason)

    def _read(self, read: Callable[[Origin], T], row: int) -> T:
        try:
            return read(self._origins[row])
        except (ValueError, OSError) as error:
            raise self.image_error(row, str(error)) from None


class JoinedDataset(ImageDataset):
    """Several data sets one after the other, their rows numbered through. All must have the same classes.

    Parts may hold samples of the same id (or no ids at all, when rows stand in for them): each keeps a randomness of
    its own, since samples of equal keys would stand side by side in every shuffled epoch.
    """

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
        self._starts = np.cumsum([0, *(part.num_samples for part in self._parts)])
        self.num_samples = int(self._starts[-1])
        self.labels = np.concatenate([part.labels for part in self._parts])
        self.keys = distinct_keys(np.concatenate([part.keys for part in self._parts]))
        self.class_names = first.class_names
        self.masks = _common_masks(self._parts)
        self.fingerprint = xxhash.xxh3_128_hexdigest("".join(part.fingerprint for part in self._parts).encode())

    def _split(self, rows: np.ndarray) -> Iterator[tuple[ImageDataset, np.ndarray, np.ndarray]]:
        """Each part that `rows` touch: the part, where in `rows` its samples stand, their rows in the part."""
        owner = np.searchsorted(self._starts, rows, side="right") - 1
        for index in np.unique(owner).tolist():
            positions = np.flatnonzero(owner == index)
            yield self._parts[index], positions, rows[positions] - self._starts[index]

    def _collect(
        self, rows: np.ndarray, result: np.ndarray, ask: Callable[[ImageDataset, np.ndarray], np.ndarray]
    ) -> np.ndarray:
        """`result`, filled with what `ask` says of each part and its own numbers of the rows."""
        for part, positions, local in self._split(rows):
            result[positions] = ask(part, local)
        return result

    def sizes(self, rows: np.ndarray) -> np.ndarray:
        return self._collect(rows, np.empty((len(rows), 2), np.int64), lambda part, local: part.sizes(local))

    def blocks(self, rows: np.ndarray) -> np.ndarray:
        def numbered(part: ImageDataset, local: np.ndarray) -> np.ndarray:
            return part.blocks(local) + (self._parts.index(part) << PART_BITS)

        return self._collect(rows, np.empty(len(rows), np.int64), numbered)

    def stored_bytes(self, rows: np.ndarray) -> np.ndarray:
        return self._collect(rows, np.empty(len(rows), np.int64), lambda part, local: part.stored_bytes(local))

    def are_raw(self, rows: np.ndarray) -> np.ndarray:
        return self._collect(rows, np.empty(len(rows), bool), lambda part, local: part.are_raw(local))

    def are_indexed(self, rows: np.ndarray) -> np.ndarray:
        return self._collect(rows, np.empty(len(rows), bool), lambda part, local: part.are_indexed(local))

    def string_ids(self, rows: np.ndarray) -> list[str]:
        result = [""] * len(rows)
        for part, positions, local in self._split(rows):
            for position, name in zip(positions.tolist(), part.string_ids(local), strict=True):
                result[position] = name
        return result

    def column(self, name: str) -> np.ndarray:
        return np.concatenate([part.column(name) for part in self._parts])

    def decode(self, row: int) -> np.ndarray:
        part, local = self._part_of(row)
        return part.decode(local)

    def mask(self, row: int) -> np.ndarray:
        part, local = self._part_of(row)
        return part.mask(local)

    def mask_pixels(self) -> np.ndarray:
        tables = [part.mask_pixels() for part in self._parts]
        columns = max(table.shape[1] for table in tables)  # that differ where nobody named the classes
        more = (np.zeros((len(table), columns - table.shape[1]), table.dtype) for table in tables)
        widened = [np.hstack([table[:, :-1], zeros, table[:, -1:]]) for table, zeros in zip(tables, more, strict=True)]
        return np.concatenate(widened)

    def stored(self, rows: np.ndarray) -> Sources:
        return gather(len(rows), [(positions, part.stored(local)) for part, positions, local in self._split(rows)])

    def image_error(self, row: int, reason: str) -> ImageError:
        part, local = self._part_of(row)
        return part.image_error(local, reason)

    def _part_of(self, row: int) -> tuple[ImageDataset, int]:
        index = int(np.searchsorted(self._starts, row, side="right")) - 1
        return self._parts[index], row - int(self._starts[index])

    def close(self) -> None:
        for part in self._parts:
            part.close()


def _common_masks(parts: Sequence[ImageDataset]) -> MaskInfo | None:
    """What the masks of all parts mean; None if one has none."""
    first = parts[0]
    for part in parts[1:]:
        if part.masks is not None and first.masks is not None and part.masks.classes != first.masks.classes:
            raise LoaderError(
                f"the masks of {first.name} and {part.name} have different classes; build them with the same "
                "--mask-classes or --palette file"
            )
    return first.masks if all(part.masks is not None for part in parts) else None


def open_dataset(data: Data) -> ImageDataset:
    """Open a `.beton` file, a folder or list of images, or several of these as one data set.

    Raises:
        LoaderError: nothing given, or the parts have different classes.
        BetonError, SourceError: a part cannot be read.
    """
    if isinstance(data, str | Path):
        return BetonDataset(data) if Path(data).suffix == ".beton" else FolderDataset(data)
    if not len(data):
        raise LoaderError("no data set is named")
    parts: list[ImageDataset] = []
    try:
        for part in data:
            parts.append(open_dataset(part))
        return parts[0] if len(parts) == 1 else JoinedDataset(parts)
    except BaseException:
        for opened in parts:
            opened.close()
        raise
