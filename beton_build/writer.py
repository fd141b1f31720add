"""Writes `.beton` files as a stream: samples in, pages out, the header last.

Only the number of samples must be known beforehand. Pages start small and grow by doubling when a sample needs it: a
region that crosses no multiple of 2^k crosses no multiple of 2^(k+1) either, so what is already written stays valid.
"""

import json
import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import xxhash

from fasttrain.base.atomic import atomic_path
from fasttrain.base.errors import BetonError
from fasttrain.beton_build import format as fmt
from fasttrain.beton_build.trailer import Data, checksum, encode_id, pack_trailer, trailer_size

SMALL_FILE = 512 << 20  # below it, pages of 2 MiB: a small data set is not mostly padding


@dataclass(frozen=True)
class EncodedImage:
    """An image as it is stored: a JPEG stream (mode 0), or raw (height, width, 3) uint8 RGB pixels (mode 1)."""

    data: Data
    mode: int
    width: int
    height: int


Value = EncodedImage | int | float | bytes


@dataclass
class _Samples:
    """What is remembered of every sample until the trailer is written."""

    ids: list[bytes] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    checksums: list[int] = field(default_factory=list)


class BetonWriter:
    """Writes one `.beton`. A context manager: the file appears under its name when the block ends without an error.

    Args:
        path: the file to write; it grows under ``NAME.part``.
        capacity: the most samples that will be added (fewer may be).
        fields: fields of a sample; images, ints, floats and bytes can be written. The first image is the one that the
            trailer describes.
        class_names: names of the classes, None when unknown.
        page_size: bytes of a page, a power of two from 2 MiB to 2 GiB; None: grows to fit the largest sample.
        expected_bytes: estimate of the file's size, for the choice of the page size.
        info: further entries of the trailer's JSON section (build options, source fingerprint).

    Raises:
        BetonError: on misuse, or when a sample does not fit an explicitly given page size.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        capacity: int,
        fields: Sequence[fmt.FieldSpec] = fmt.IMAGE_AND_LABEL,
        *,
        class_names: Sequence[str] | None = None,
        page_size: int | None = None,
        expected_bytes: int = 0,
        info: dict[str, Any] | None = None,
    ) -> None:
        if page_size is not None and not fmt.is_page_size(page_size):
            raise BetonError(
                f"page size {page_size} is not a power of two from {fmt.MIN_PAGE_SIZE} to {fmt.MAX_PAGE_SIZE}"
            )
        self.path = Path(path)
        self.fields = tuple(fields)
        self.class_names = None if class_names is None else list(class_names)
        self.info = dict(info or {})
        self._may_grow = page_size is None
        small = fmt.MIN_PAGE_SIZE if expected_bytes < SMALL_FILE else fmt.DEFAULT_PAGE_SIZE
        self.page_size = page_size or small
        self._descriptors = fmt.pack_fields(self.fields)
        self._metadata = np.zeros(capacity, fmt.metadata_dtype(self.fields))
        self._samples = _Samples()
        self._alloc: list[tuple[int, int, int]] = []
        head = fmt.metadata_offset(len(self.fields)) + self._metadata.nbytes
        self._position = fmt.round_up(head, self.page_size)
        self._stack = ExitStack()

    def __enter__(self) -> "BetonWriter":
        with ExitStack() as stack:
            part = stack.enter_context(atomic_path(self.path))
            self._file = stack.enter_context(part.open("wb"))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._stack.__exit__(kind, error, trace)
            return
        with self._stack:
            self._complete()

    def __len__(self) -> int:
        """Samples written so far."""
        return len(self._samples.ids)

    def add(self, sample_id: str, values: Sequence[Value]) -> None:
        """Append one sample: one value a field, in the order of the fields.

        Raises:
            BetonError: the values do not fit the fields, or the sample does not fit a page.
        """
        row = len(self)
        if row >= len(self._metadata):
            raise BetonError(f"{self.path}: more samples than the {len(self._metadata)} that were announced")
        if len(values) != len(self.fields):
            raise BetonError(f"sample {sample_id!r} has {len(values)} values for {len(self.fields)} fields")
        regions = [_region(value, spec, sample_id) for value, spec in zip(values, self.fields, strict=True)]
        pointers = self._place([memoryview(data).nbytes for data in regions if data is not None], sample_id)
        described = False
        for column, (value, data) in enumerate(zip(values, regions, strict=True)):
            pointer = 0 if data is None else self._write(row, next(pointers), data)
            self._metadata[f"f{column}"][row] = _entry(value, pointer)
            if isinstance(value, EncodedImage) and not described:
                described = True
                self._samples.sizes.append(memoryview(value.data).nbytes)
                self._samples.checksums.append(checksum(value.data))
        if not described:
            self._samples.sizes.append(0)
            self._samples.checksums.append(0)
        self._samples.ids.append(encode_id(sample_id))

    def _place(self, lengths: list[int], sample_id: str) -> Any:
        """Choose the offsets of a sample's regions: aligned, all in one page."""
        needed = sum(fmt.round_up(length, fmt.REGION_ALIGNMENT) for length in lengths)
        if needed > self.page_size:
            self._grow(needed, sample_id)
        start = fmt.round_up(self._position, fmt.REGION_ALIGNMENT)
        if start // self.page_size != (start + max(needed, 1) - 1) // self.page_size:
            start = fmt.round_up(start, self.page_size)
        pointers = []
        for length in lengths:
            pointers.append(start)
            start += fmt.round_up(length, fmt.REGION_ALIGNMENT)
        return iter(pointers)

    def _grow(self, needed: int, sample_id: str) -> None:
        if not self._may_grow or needed > fmt.MAX_PAGE_SIZE:
            advice = (
                f"--page-size {1 << (needed - 1).bit_length()}" if needed <= fmt.MAX_PAGE_SIZE else "--max-resolution"
            )
            raise BetonError(
                f"sample {sample_id!r} takes {needed} bytes and does not fit a page of {self.page_size}; use {advice}"
            )
        self.page_size = 1 << (needed - 1).bit_length()

    def _write(self, row: int, pointer: int, data: Data) -> int:
        if self._file.tell() != pointer:
            self._file.seek(pointer)
        self._file.write(data)
        size = memoryview(data).nbytes
        self._position = pointer + size
        self._alloc.append((row, pointer, size))
        return pointer

    # ---- the end of the file, then its beginning ---------------------------------------------------------------

    def _complete(self) -> None:
        """Write trailer, table, metadata and, once all of that is on the disk, the header."""
        if not len(self):
            raise BetonError(f"{self.path}: no sample was written, so there is no file")
        metadata = self._metadata[: len(self)]
        alloc = np.array(self._alloc, dtype=fmt.ALLOC)  # regions are placed in rising order: sorted by ptr
        start = fmt.round_up(self._position, self.page_size)
        sections = self._sections(metadata)
        lengths = {name: memoryview(data).nbytes for name, data in sections.items()}
        table_at = start + trailer_size(lengths, self.page_size)
        header = np.zeros(1, fmt.HEADER)
        header[0] = (fmt.VERSION, len(self.fields), self.page_size, len(self), table_at)
        rest = self._descriptors + metadata.tobytes()
        table = alloc.tobytes()
        digests = np.array([checksum(header.tobytes() + rest), checksum(table)], "<u8")
        body, footer = pack_trailer(sections | {"digests": digests.tobytes()}, start, self.page_size)
        self._put(start, body)
        self._put(table_at - len(footer), footer + table)
        self._put(fmt.HEADER.itemsize, rest)
        self._sync()
        self._put(0, header.tobytes())
        self._sync()

    def _sections(self, metadata: np.ndarray) -> dict[str, Data]:
        ids = self._samples.ids
        keys = np.fromiter((xxhash.xxh3_64_intdigest(entry) for entry in ids), "<u8", len(ids))
        offsets = np.zeros(len(ids) + 1, "<u8")
        np.cumsum([len(entry) for entry in ids], out=offsets[1:])
        info = {
            "format": "fasttrain.beton",
            "samples": len(ids),
            "regions": len(self._alloc),
            "class_names": self.class_names,
            **self.info,
            "complete": True,
        }
        return {
            "json": json.dumps(info).encode(),
            "digests": bytes(16),
            "id_offsets": offsets.tobytes(),
            "id_blob": b"".join(ids),
            "keys": keys.tobytes(),
            "image_sizes": np.array(self._samples.sizes, "<u8").tobytes(),
            "image_xxh3": np.array(self._samples.checksums, "<u8").tobytes(),
        }

    def _put(self, offset: int, data: Data) -> None:
        self._file.seek(offset)
        self._file.write(data)

    def _sync(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())


def _region(value: Value, spec: fmt.FieldSpec, sample_id: str) -> Data | None:
    """The bytes of a value that go into a page, None for values that live in the metadata.

    Raises:
        BetonError: the value does not fit the field.
    """
    if spec.type_id == fmt.IMAGE_FIELD and isinstance(value, EncodedImage):
        if not (0 < value.width <= fmt.MAX_SIDE and 0 < value.height <= fmt.MAX_SIDE):
            raise BetonError(
                f"sample {sample_id!r} is {value.width}x{value.height} pixels; sides go up to {fmt.MAX_SIDE}: "
                "use --max-resolution"
            )
        return value.data
    if spec.type_id == fmt.BYTES_FIELD and isinstance(value, bytes):
        return value or b"\0"  # an empty region would share its offset with the next one
    numeric = isinstance(value, int | float | np.integer | np.floating)
    if numeric and (spec.type_id == fmt.FLOAT_FIELD or (spec.type_id == fmt.INT_FIELD and int(value) == value)):  # type: ignore[arg-type]
        return None
    raise BetonError(
        f"sample {sample_id!r}: a {type(value).__name__} does not fit field {spec.name!r} ({spec.type_name})"
    )


def _entry(value: Value, pointer: int) -> Any:
    """The metadata entry of a value."""
    if isinstance(value, EncodedImage):
        return (value.mode, value.width, value.height, pointer)
    if isinstance(value, bytes):
        return (pointer, max(1, len(value)))
    return value
