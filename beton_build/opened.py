"""An opened `.beton`, ours or FFCV's: a memory map, and arrays over all samples; no Python object a sample."""

import os
import struct
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from fasttrain.base.errors import BetonError
from fasttrain.beton_build import layout
from fasttrain.beton_build.format import BYTES_FIELD, HEADER, IMAGE_FIELD, INT_FIELD, FieldSpec
from fasttrain.beton_build.ids import SampleIds
from fasttrain.beton_build.indices import SIZES as INDEX_SIZES
from fasttrain.beton_build.indices import Indices, InnerIndices
from fasttrain.beton_build.mask_info import MAX_CLASSES, MaskInfo
from fasttrain.beton_build.records import ORIGINAL, Original
from fasttrain.beton_build.sidecar import find_sidecar
from fasttrain.beton_build.size_cache import load_sizes, store_sizes
from fasttrain.beton_build.trailer import Trailer


class OpenedBeton:
    """What `BetonReader` is made of: the parts of the file, and what it holds about all samples at once."""

    def __init__(self, path: str | os.PathLike[str], *, sidecar: bool = True) -> None:
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
            self._trailer: Trailer | None = parts.trailer
            self.build_info: dict[str, Any] = parts.info
            self.class_names: list[str] | None = self.build_info.get("class_names")
            if self._trailer is None and self._image_column is not None:
                self._look_sizes_up()
            self.masks = MaskInfo.parse(self.build_info.get("masks"), self.path)
            self._mask_column = self._find_masks()
            self._indices = self._find_indices(sidecar)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Unmap the file; it stays mapped for as long as views into it are held elsewhere."""
        if (indices := self.__dict__.pop("_indices", None)) is not None:
            indices.close()
        for name in ("_parts", "_trailer", "_data"):
            self.__dict__.pop(name, None)
        with suppress(BufferError):
            self._map.close()

    def _first_field(self, type_id: int) -> str | None:
        return next((f"f{index}" for index, field in enumerate(self.fields) if field.type_id == type_id), None)

    def _find_masks(self) -> str | None:
        """The column of the masks, where the file says that it holds some."""
        if self.masks is None:
            return None
        for index, field in enumerate(self.fields):
            if field.name == self.masks.field and field.type_id == BYTES_FIELD:
                return f"f{index}"
        raise BetonError(f"{self.path} is damaged: it speaks of masks, but has no bytes field {self.masks.field!r}")

    def _look_sizes_up(self) -> None:
        """For a file without our trailer: find the images' sizes in its table, and check all records once."""
        sizes = load_sizes(self.path, self.num_samples)
        if sizes is None:
            layout.refuse_filled_pages(self._parts, self._data, str(self.path))
            sizes = layout.sizes_from_table(self._parts.alloc, self._images["data_ptr"], str(self.path))
            layout.check_regions(self._parts, self._images, sizes, str(self.path))
            store_sizes(self.path, sizes)
        self.__dict__["sizes"] = sizes  # as the cached property would

    def _find_indices(self, sidecar: bool) -> Indices | None:
        if self._image_column is None:
            return None
        if self._trailer is not None and INDEX_SIZES in self._trailer:
            return InnerIndices(self._trailer, self.num_samples, self._data)
        return find_sidecar(self.path, self.num_samples, self.identity) if sidecar else None

    @property
    def num_bytes(self) -> int:
        """Length of the file."""
        return self._data.nbytes

    @property
    def has_images(self) -> bool:
        return self._image_column is not None

    @property
    def has_trailer(self) -> bool:
        """Whether the file holds ids, checksums and the like (FFCV's do not)."""
        return self._trailer is not None

    @property
    def _images(self) -> np.ndarray:
        """(N,) records of format.IMAGE."""
        if self._image_column is None:
            names = ", ".join(field.describe() for field in self.fields)
            raise BetonError(f"{self.path} has no RGB image field, only: {names}")
        return self._parts.metadata[self._image_column]

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
        assert self._trailer is not None  # without one they were looked up when the file was opened
        return self._trailer.array("image_sizes", self.num_samples)

    @cached_property
    def labels(self) -> np.ndarray:
        """(N,) int64: labels, -1 where unknown."""
        if self._label_column is None:
            return np.full(self.num_samples, -1, np.int64)
        labels = np.ascontiguousarray(self._parts.metadata[self._label_column])
        if self.class_names is not None and len(labels):
            low, high = int(labels.min()), int(labels.max())
            if low < -1 or high >= len(self.class_names):
                wrong = low if low < -1 else high
                raise BetonError(f"{self.path} is damaged: label {wrong} with {len(self.class_names)} classes")
        return labels

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
    def other_checksums(self) -> np.ndarray | None:
        """(N,) uint64: xxh3-64 of each sample's regions but its image's; None where there are none, or no checksums."""
        if self._trailer is None or "other_xxh3" not in self._trailer:
            return None
        return self._trailer.array("other_xxh3", self.num_samples)

    @cached_property
    def mask_pixels(self) -> np.ndarray | None:
        """(N, C + 1) uint32: pixels of each class in each mask, then those that count for nothing; None without masks.

        C is the number of class names, or of the classes that occur where nobody named them.
        """
        if self.masks is None or self._trailer is None:
            return None
        data = self._trailer.section("mask_pixels")
        columns = data.nbytes // max(4 * self.num_samples, 1)
        known = 0 if self.masks.classes is None else len(self.masks.classes)
        fits = columns == known + 1 if known else 2 <= columns <= MAX_CLASSES + 1
        if data.nbytes != 4 * self.num_samples * columns or not fits:
            raise BetonError(f"{self.path} is damaged: its trailer section 'mask_pixels' has {data.nbytes} bytes")
        return np.frombuffer(data, "<u4").reshape(self.num_samples, columns)

    @cached_property
    def originals(self) -> np.ndarray | None:
        """(N,) records of width, height and kind (of `original_kinds`) before conversion; None where not known."""
        if self._trailer is None or "originals" not in self._trailer:
            return None
        data = self._trailer.section("originals")
        if data.nbytes != self.num_samples * ORIGINAL.itemsize:
            raise BetonError(f"{self.path} is damaged: its trailer section 'originals' has {data.nbytes} bytes")
        return np.frombuffer(data, ORIGINAL)

    def original(self, row: int) -> Original | None:
        """What the image of `row` was before it was converted, None where the file does not tell."""
        kinds = self.build_info.get("original_kinds")
        if self.originals is None or not isinstance(kinds, list):
            return None
        width, height, kind = self.originals[row].tolist()
        return Original(width, height, str(kinds[kind])) if width and kind < len(kinds) else None

    @cached_property
    def fingerprint(self) -> str:
        """32 hexadecimal digits that depend on the samples' ids, labels, class names and image bytes.

        In a file without checksums the allocation table and the metadata stand for the image bytes.
        """
        digest = xxhash.xxh3_128()
        if self._trailer is None:
            digest.update(self._parts.head)
            digest.update(np.ascontiguousarray(self._parts.alloc).view(np.uint8).data)
        else:
            digest.update(repr(self.class_names).encode("utf-8", "surrogateescape"))
            for array in filter(
                lambda array: array is not None, (self.keys, self.labels, self.checksums, self.other_checksums)
            ):
                digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def identity(self) -> bytes:
        """16 bytes that stand for the content of the file, for what is made of it.

        Of FFCV's files, which have no checksums, they stand for metadata and allocation table.
        """
        if self._trailer is None:
            return bytes.fromhex(self.fingerprint)
        head = bytes(self._parts.head[: HEADER.itemsize])
        return xxhash.xxh3_128_digest(head + struct.pack("<QQ", self._trailer.digest, self.num_bytes))
