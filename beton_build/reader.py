"""Reads `.beton` files, ours and FFCV's, through a memory map: arrays and views, no Python object a sample."""

import os
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import xxhash

from fasttrain.base.errors import BetonError, ImageError
from fasttrain.beton_build import layout
from fasttrain.beton_build.format import IMAGE_FIELD, INT_FIELD, MODE_JPG, MODE_RAW, FieldSpec
from fasttrain.beton_build.ids import SampleIds
from fasttrain.beton_build.trailer import Trailer


class BetonReader:
    """A `.beton` file, opened for reading. A context manager; safe to share between threads.

    The image field is the first of FFCV's type RGBImageField, the label field the first IntField. Everything that a
    damaged or hostile file could get wrong is checked before it is used.

    Attributes:
        path: the file.
        num_samples: N.
        page_size: bytes of a page.
        fields: all fields of a sample.
        class_names: names of the classes, None when the file holds none (FFCV's files do not).
        build_info: what the trailer tells about the build ({} in FFCV's files).

    Raises:
        BetonError: no such file, not a `.beton`, damaged, cut short, never completed, or of another version.
    """

    indexed = False  # whether the file holds a random-access index of its JPEG streams

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._map = layout.map_file(self.path)
        self._data = memoryview(self._map)
        try:
            parts = layout.parse(self._data, str(self.path))
            self._parts = parts
            self.num_samples: int = parts.num_samples
            self.page_size: int = parts.page_size
            self.fields: tuple[FieldSpec, ...] = parts.fields
            self._image_column = self._first_field(IMAGE_FIELD)
            self._label_column = self._first_field(INT_FIELD)
            if self._image_column is None:
                names = ", ".join(f"{field.name} ({field.type_name})" for field in self.fields)
                raise BetonError(f"{self.path} has no RGB image field, only: {names}")
            self._trailer: Trailer | None = parts.trailer
            self.build_info: dict[str, Any] = parts.info
            self.class_names: list[str] | None = self.build_info.get("class_names")
            self._check_labels()
            self._check_regions()
        except BaseException:
            self.close()
            raise

    def _first_field(self, type_id: int) -> str | None:
        return next((f"f{index}" for index, field in enumerate(self.fields) if field.type_id == type_id), None)

    # ---- arrays over all samples -------------------------------------------------------------------------------

    @cached_property
    def widths(self) -> np.ndarray:
        """(N,) uint16: image widths in pixels."""
        return np.ascontiguousarray(self._images["width"])

    @cached_property
    def heights(self) -> np.ndarray:
        """(N,) uint16: image heights in pixels."""
        return np.ascontiguousarray(self._images["height"])

    @cached_property
    def modes(self) -> np.ndarray:
        """(N,) uint8: 0 JPEG stream, 1 raw RGB pixels."""
        return np.ascontiguousarray(self._images["mode"])

    @cached_property
    def offsets(self) -> np.ndarray:
        """(N,) uint64: where each image's region starts in the file."""
        return np.ascontiguousarray(self._images["data_ptr"])

    @cached_property
    def sizes(self) -> np.ndarray:
        """(N,) uint64: bytes of each image's region."""
        if self._trailer is not None:
            return self._trailer.array("image_sizes", self.num_samples)
        return layout.sizes_from_table(self._parts.alloc, self.offsets, str(self.path))

    @cached_property
    def labels(self) -> np.ndarray:
        """(N,) int64: labels, -1 where unknown."""
        if self._label_column is None:
            return np.full(self.num_samples, -1, np.int64)
        return np.ascontiguousarray(self._parts.metadata[self._label_column])

    @cached_property
    def ids(self) -> SampleIds:
        """The samples' string ids (the row as a string where the file has none)."""
        if self._trailer is None:
            return SampleIds(self.num_samples)
        offsets = self._trailer.array("id_offsets", self.num_samples + 1)
        blob = self._trailer.section("id_blob")
        if int(offsets[-1]) > blob.nbytes or np.any(offsets[1:] < offsets[:-1]):
            raise BetonError(f"{self.path} is damaged: the offsets of its sample ids are out of order")
        return SampleIds(self.num_samples, offsets, blob)

    @cached_property
    def keys(self) -> np.ndarray:
        """(N,) uint64: xxh3-64 of each string id; the row where the file has no ids."""
        if self._trailer is None:
            return np.arange(self.num_samples, dtype=np.uint64)
        return self._trailer.array("keys", self.num_samples)

    @cached_property
    def checksums(self) -> np.ndarray | None:
        """(N,) uint64: xxh3-64 of each image's region; None where the file has none."""
        return None if self._trailer is None else self._trailer.array("image_xxh3", self.num_samples)

    @cached_property
    def fingerprint(self) -> str:
        """32 hexadecimal digits that depend on the samples' ids, labels, class names and image bytes.

        In a file without checksums the allocation table and the metadata stand for the image bytes.
        """
        digest = xxhash.xxh3_128()
        if self._trailer is None:
            digest.update(self._parts.head)
            digest.update(np.ascontiguousarray(self._parts.alloc).tobytes())
        else:
            digest.update(repr(self.class_names).encode("utf-8", "surrogateescape"))
            for array in (self.keys, self.labels, self.checksums):
                digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    # ---- one sample --------------------------------------------------------------------------------------------

    def image_bytes(self, row: int) -> memoryview:
        """The stored bytes of an image, a read-only view into the mapped file (nothing is copied)."""
        if not 0 <= row < self.num_samples:
            raise IndexError(f"row {row} of {self.num_samples} samples in {self.path}")
        start = int(self.offsets[row])
        return self._data[start : start + int(self.sizes[row])]

    def image(self, row: int) -> np.ndarray:
        """Decode an image with Pillow, or view raw pixels in place.

        Returns:
            (height, width, 3) uint8 RGB.

        Raises:
            ImageError: the stream is broken, or not of the size that the file states.
        """
        from fasttrain.beton_build.images import decode_stream

        data = self.image_bytes(row)
        shape = (int(self.heights[row]), int(self.widths[row]), 3)
        if self.modes[row] == MODE_RAW:
            return np.frombuffer(data, np.uint8).reshape(shape)
        try:
            pixels = decode_stream(data, expect=shape[:2])
        except ValueError as error:
            raise self.image_error(row, str(error)) from None
        return pixels

    def image_error(self, row: int, reason: str) -> ImageError:
        """An error about the image in `row`, naming the sample and the place in this file."""
        return ImageError(self.ids[row], f"{self.path}[{row}]", reason)

    # ---- the whole ---------------------------------------------------------------------------------------------

    def describe(self) -> dict[str, Any]:
        """What `fasttrain info` prints: samples, classes, fields, bytes, complete, indexed and more."""
        labels = self.labels
        known = labels[labels >= 0]
        return {
            "samples": self.num_samples,
            "classes": self.class_names or [],
            "num_classes": len(self.class_names) if self.class_names else int(known.max(initial=-1)) + 1,
            "labelled": int(known.size),
            "fields": [{"name": field.name, "type": field.type_name} for field in self.fields],
            "bytes": self._data.nbytes,
            "image_bytes": int(self.sizes.sum()),
            "jpeg": int(np.count_nonzero(self.modes == MODE_JPG)),
            "raw": int(np.count_nonzero(self.modes == MODE_RAW)),
            "width": _spread(self.widths),
            "height": _spread(self.heights),
            "page_size": self.page_size,
            "complete": True,  # an incomplete file cannot be opened
            "indexed": self.indexed,
            "has_ids": self._trailer is not None,
            "fingerprint": self.fingerprint,
            "build": {key: value for key, value in self.build_info.items() if key != "class_names"},
        }

    def check_structure(self) -> None:
        """Check every checksum of the file's structure (not of the images).

        Raises:
            BetonError: one does not hold.
        """
        if self._trailer is not None:
            layout.check_digests(self._parts, str(self.path), table=True)
            for array in (self.keys, self.sizes, self.checksums, self.ids):
                assert array is not None and len(array) == self.num_samples
            table = layout.sizes_from_table(self._parts.alloc, self.offsets, str(self.path))
            if not np.array_equal(table, self.sizes):
                raise BetonError(
                    f"{self.path} is damaged: its allocation table and its trailer disagree on image sizes"
                )

    def close(self) -> None:
        """Unmap the file; it stays mapped for as long as views into it are held elsewhere."""
        for name in ("_parts", "_trailer", "_data"):
            self.__dict__.pop(name, None)
        with suppress(BufferError):
            self._map.close()

    def __len__(self) -> int:
        return self.num_samples

    def __enter__(self) -> "BetonReader":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[type["BetonReader"], tuple[Path]]:
        return BetonReader, (self.path,)

    # ---- checks ------------------------------------------------------------------------------------------------

    @property
    def _images(self) -> np.ndarray:
        assert self._image_column is not None
        return self._parts.metadata[self._image_column]

    def _check_labels(self) -> None:
        if self.class_names is None or not self.num_samples:
            return
        low, high = int(self.labels.min()), int(self.labels.max())
        if low < -1 or high >= len(self.class_names):
            wrong = low if low < -1 else high
            raise BetonError(f"{self.path} is damaged: label {wrong} with {len(self.class_names)} classes")

    def _check_regions(self) -> None:
        """Every image's region lies inside the pages, and raw regions have the size of their pixels."""
        start, stop = np.uint64(self._parts.data_start), np.uint64(self._parts.data_stop)
        offsets, sizes = self.offsets, self.sizes
        inside = (offsets >= start) & (offsets <= stop) & (sizes <= stop - np.minimum(offsets, stop)) & (sizes > 0)
        self._refuse_rows(~inside, "its image lies outside of the file's pages")
        modes = self.modes
        self._refuse_rows(modes > MODE_RAW, "its image mode is neither JPEG nor raw")
        widths, heights = self.widths.astype(np.uint64), self.heights.astype(np.uint64)
        self._refuse_rows((widths == 0) | (heights == 0), "its image has no pixels")
        fits = (modes == MODE_JPG) | (sizes == widths * heights * np.uint64(3))
        self._refuse_rows(~fits, "its raw image has another size than its width and height say")

    def _refuse_rows(self, wrong: np.ndarray, what: str) -> None:
        if wrong.any():
            row = int(np.argmax(wrong))
            raise BetonError(f"{self.path} is damaged: row {row} of {self.num_samples}: {what}")


def _spread(values: np.ndarray) -> dict[str, int]:
    """Least, median and largest of `values` ({} when there are none)."""
    if not values.size:
        return {}
    return {"min": int(values.min()), "median": int(np.median(values)), "max": int(values.max())}
