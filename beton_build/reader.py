"""Reads `.beton` files, ours and FFCV's, through a memory map: arrays and views, no Python object a sample."""

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import numpy as np

from fasttrain.base.errors import BetonError, ImageError
from fasttrain.beton_build import layout
from fasttrain.beton_build.format import IMAGE_FIELD, MODE_RAW, FieldSpec
from fasttrain.beton_build.indices import Indices, index_regions
from fasttrain.beton_build.opened import OpenedBeton
from fasttrain.beton_build.trailer import checksum
from fasttrain.beton_build.values import EncodedImage, decode_region, span_of


class BetonReader(OpenedBeton):
    """A `.beton` file, opened for reading. A context manager; safe to share between threads.

    The image field is the first of FFCV's type RGBImageField, the label field the first IntField. Everything that a
    damaged or hostile file could get wrong is checked before it is used: the structure when the file is opened, which
    takes no memory for each sample, the rest when it is asked for.

    Args:
        sidecar: use a file of random-access indices that lies beside it.

    Attributes:
        path: the file.
        num_samples: N.
        page_size: bytes of a page.
        fields: all fields of a sample.
        class_names: names of the classes, None when the file holds none (FFCV's files do not).
        build_info: what the trailer tells about the build ({} in FFCV's files).

    Raises:
        BetonError: no such file, not a `.beton`, damaged, cut short, never completed, or of another version; or the
            file of indices beside it is damaged.
    """

    # ---- one sample --------------------------------------------------------------------------------------------

    def image_bytes(self, row: int) -> memoryview:
        """The stored bytes of an image, a read-only view into the mapped file (nothing is copied).

        Raises:
            ImageError: the file's records of this image cannot be right.
        """
        if not 0 <= row < self.num_samples:
            raise IndexError(f"row {row} of {self.num_samples} samples in {self.path}")
        image, size = self._images[row : row + 1], self.sizes[row : row + 1]
        fault = layout.region_faults(self._parts, image, size)
        if fault is not None:
            raise self.image_error(row, f"the file is damaged: {fault[1]}")
        start = int(image["data_ptr"][0])
        return self._data[start : start + int(size[0])]

    def image_regions(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Offsets and sizes in bytes, (n,) int64, of the stored images of `rows` in `data`, and (n,) bool: whether the
        file's records of them can be right; the other offsets and sizes mean nothing."""
        images, sizes = self._images[rows], self.sizes[rows]
        sound = np.ones(len(rows), bool)
        if layout.region_faults(self._parts, images, sizes) is not None:
            faults = (layout.region_faults(self._parts, images[i : i + 1], sizes[i : i + 1]) for i in range(len(rows)))
            sound = np.fromiter((fault is None for fault in faults), bool, len(rows))
        return images["data_ptr"].astype(np.int64), sizes.astype(np.int64), sound

    def mask_regions(self, rows: np.ndarray) -> np.ndarray:
        """(n,) int64: where the masks of `rows` begin in `data`; each takes height x width bytes.

        Only for files with `masks`.

        Raises:
            ImageError: the file's records of a mask cannot be right.
        """
        entries = self._parts.metadata[self._mask_column][rows]
        starts, sizes = entries["ptr"], entries["size"]
        pixels = self.widths[rows].astype(np.uint64) * self.heights[rows]
        first, last = np.uint64(self._parts.data_start), np.uint64(self._parts.data_stop)
        sound = (starts >= first) & (starts <= last) & (sizes == pixels) & (sizes <= last - np.minimum(starts, last))
        if not sound.all():
            row = int(rows[np.argmin(sound)])
            raise self.image_error(
                row, "the file is damaged: its mask is not of the image's size, or lies outside of it"
            )
        return starts.astype(np.int64)

    def mask(self, row: int) -> np.ndarray:
        """The mask of an image as it is stored, a read-only view: (height, width) uint8 class numbers.

        Raises:
            BetonError: the file holds no masks.
            ImageError: its records of this one cannot be right.
        """
        if self.masks is None:
            raise BetonError(f"{self.path} holds no masks; build it with --masks")
        if not 0 <= row < self.num_samples:
            raise IndexError(f"row {row} of {self.num_samples} samples in {self.path}")
        start = int(self.mask_regions(np.array([row]))[0])
        height, width = int(self.heights[row]), int(self.widths[row])
        return np.frombuffer(self._data, np.uint8, height * width, start).reshape(height, width)

    @property
    def data(self) -> memoryview:
        """The mapped file, read-only."""
        return self._data

    # ---- the random-access index of the JPEGs ------------------------------------------------------------------

    @property
    def indexed(self) -> bool:
        """Whether any of the images has a random-access index."""
        return self._indices is not None

    @property
    def index_where(self) -> Literal["inside", "sidecar"] | None:
        """Where the indices lie: inside of the file, or in one beside it; None when there are none."""
        return None if self._indices is None else self._indices.where

    @cached_property
    def index_sizes(self) -> np.ndarray:
        """(N,) uint64: bytes of each image's index, 0 where it has none."""
        return np.zeros(self.num_samples, np.uint64) if self._indices is None else self._indices.sizes

    @property
    def num_indexed(self) -> int:
        """How many of the images have an index."""
        return int(np.count_nonzero(self.index_sizes))

    def index_regions(self, rows: np.ndarray) -> tuple[memoryview, np.ndarray, np.ndarray]:
        """Where the indices of `rows` lie: the buffer, and in it (n,) int64 offsets, which are multiples of 8, and
        (n,) int64 lengths in bytes; 0 for images without one and where the file's records cannot be right.

        Only for files that are `indexed`.

        Raises:
            BetonError: the table of the indices is damaged.
        """
        assert self._indices is not None
        offsets, sizes, sound = self.image_regions(rows)
        ends = offsets.view(np.uint64) + sizes.view(np.uint64)
        return self._indices.data, *index_regions(self._indices, rows, ends, sound)

    def index_bytes(self, row: int) -> memoryview:
        """The index of an image, 8 bytes an entry; empty where it has none.

        Raises:
            ImageError: its bytes are not those that were written.
        """
        if self._indices is None or not self.index_sizes[row]:
            return memoryview(b"")
        data, offsets, lengths = self.index_regions(np.array([row]))
        index = data[int(offsets[0]) : int(offsets[0] + lengths[0])]
        if not lengths[0] or checksum(index) != int(self._indices.checksums[row]):
            raise self.image_error(row, "its random-access index is damaged: the checksum does not hold")
        return index

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

    def column(self, name: str) -> np.ndarray:
        """(N,) values of an int (int64) or float (float64) field.

        Raises:
            BetonError: there is no such field, or its values are no numbers (`value` gives those one by one).
        """
        spec = self._spec(name)
        if spec.has_region:
            raise BetonError(f"{self.path}: field {spec.describe()} holds no numbers; read it sample by sample")
        return np.ascontiguousarray(self._parts.metadata[self._column_of(spec)])

    def value(self, row: int, name: str) -> Any:
        """The value of one field of a sample: int, float, bytes, a JSON value, a read-only array, or (image fields) its
        stored form.

        Raises:
            BetonError: there is no such field, or the file is damaged there.
        """
        if not 0 <= row < self.num_samples:
            raise IndexError(f"row {row} of {self.num_samples} samples in {self.path}")
        spec = self._spec(name)
        entry = self._parts.metadata[self._column_of(spec)][row]
        if spec.type_id == IMAGE_FIELD:
            return self._stored_image(row, spec, entry)
        if not spec.has_region:
            return entry.item()
        try:
            return decode_region(self._region(*span_of(entry, spec)), spec)
        except ValueError as error:
            raise BetonError(f"{self.path} is damaged: row {row}, field {name!r}: {error}; {layout.AGAIN}") from None

    def _stored_image(self, row: int, spec: FieldSpec, entry: np.void) -> EncodedImage:
        if self._column_of(spec) == self._image_column:
            data = self.image_bytes(row)
        else:  # a further image field: the file keeps its size in the allocation table alone
            offset = np.array([entry["data_ptr"]], np.uint64)
            table = self._parts.alloc
            mine = table[table["ptr"] == offset]
            if len(mine) != 1:
                raise BetonError(f"{self.path} is damaged: row {row}, field {spec.name!r} is not in its table")
            try:
                data = self._region(int(offset[0]), int(mine["size"][0]))
            except ValueError as error:
                raise BetonError(f"{self.path} is damaged: row {row}, field {spec.name!r}: {error}") from None
        return EncodedImage(data, int(entry["mode"]), int(entry["width"]), int(entry["height"]))

    def _region(self, offset: int, size: int) -> memoryview:
        if not (self._parts.data_start <= offset and 0 < size <= self._parts.data_stop - offset):
            raise ValueError("it lies outside of the file's pages")
        return self._data[offset : offset + size]

    def _spec(self, name: str) -> FieldSpec:
        for spec in self.fields:
            if spec.name == name:
                return spec
        raise BetonError(f"{self.path} has no field {name!r}, only: {', '.join(spec.name for spec in self.fields)}")

    def _column_of(self, spec: FieldSpec) -> str:
        return f"f{self.fields.index(spec)}"

    def other_regions(self, row: int) -> Iterator[memoryview]:
        """The regions of a sample, in the order of the fields, without that of its image.

        Raises:
            BetonError: the file is damaged there.
        """
        for index, spec in enumerate(self.fields):
            if not spec.has_region or f"f{index}" == self._image_column:
                continue
            entry = self._parts.metadata[f"f{index}"][row]
            if spec.type_id == IMAGE_FIELD:
                yield memoryview(self._stored_image(row, spec, entry).data)
                continue
            try:
                yield self._region(*span_of(entry, spec))
            except ValueError as error:
                raise BetonError(f"{self.path} is damaged: row {row}, field {spec.name!r}: {error}") from None

    def image_error(self, row: int, reason: str) -> ImageError:
        """An error about the image in `row`, naming the sample and the place in this file."""
        return ImageError(self.ids[row], f"{self.path}[{row}]", reason)

    # ---- the whole ---------------------------------------------------------------------------------------------

    def check_structure(self) -> None:
        """Check every checksum of the file's structure (not of the images).

        Raises:
            BetonError: one does not hold.
        """
        if self._trailer is not None:
            layout.check_digests(self._parts, str(self.path), table=True)
            for array in (self.keys, self.sizes, self.checksums, self.ids, self.labels):
                assert array is not None and len(array) == self.num_samples
            if self._image_column is None:
                return
            layout.check_regions(self._parts, self._images, self.sizes, str(self.path))
            table = layout.sizes_from_table(self._parts.alloc, self.offsets, str(self.path))
            if not np.array_equal(table, self.sizes):
                raise BetonError(
                    f"{self.path} is damaged: its allocation table and its trailer disagree on image sizes"
                )
        if self._indices is not None:
            self._check_indices(self._indices)

    def _check_indices(self, indices: Indices) -> None:
        assert len(indices.sizes) == len(indices.checksums) == self.num_samples
        for start in range(0, self.num_samples, layout.CHUNK):
            rows = np.arange(start, min(start + layout.CHUNK, self.num_samples))
            lost = (self.index_regions(rows)[2] == 0) & (indices.sizes[rows] > 0)
            if lost.any():
                row = start + int(np.argmax(lost))
                raise BetonError(f"{self.path} is damaged: the index of row {row} cannot be where it should be")

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
