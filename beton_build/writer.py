"""Writes `.beton` files as a stream: samples in, pages out, the header last.

Only the number of samples must be known beforehand. Pages start small and grow by doubling when a sample needs it: a
region that crosses no multiple of 2^k crosses no multiple of 2^(k+1) either, so what is already written stays valid.
"""

import json
import os
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
import xxhash

from fasttrain.base.atomic import part_path, publish
from fasttrain.base.errors import BetonError
from fasttrain.beton_build import format as fmt
from fasttrain.beton_build.mask_info import MAX_CLASSES, MaskInfo
from fasttrain.beton_build.records import Original, SampleRecords
from fasttrain.beton_build.trailer import Data, checksum, pack_trailer, trailer_size
from fasttrain.beton_build.values import EncodedImage, EncodedMask, Value, entry_of, region_of

FLUSH_EVERY = 32 << 20  # bytes: bringing them to the disk begins while others are still being prepared
SMALL_FILE = 512 << 20  # below it, pages of 2 MiB: a small data set is not mostly padding


class BetonWriter:
    """Writes one `.beton`. A context manager: the file appears under its name when the block ends without an error.

    Args:
        path: the file to write; it grows under ``NAME.part``.
        capacity: the most samples that will be added (fewer may be).
        fields: fields of a sample. The first image is the one that the trailer describes.
        class_names: names of the classes, None when unknown.
        page_size: bytes of a page, a power of two from 2 MiB to 2 GiB; None: grows to fit the largest sample.
        expected_bytes: estimate of the file's size, for the choice of the page size.
        info: further entries of the trailer's JSON section (build options, source fingerprint).
        going_on: continue a ``NAME.part`` that is there; `restore` must be called before the first `add`.

    Attributes:
        keep_part: leave ``NAME.part`` when the block ends with an error, for going on later.

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
        going_on: bool = False,
    ) -> None:
        if page_size is not None and not fmt.is_page_size(page_size):
            raise BetonError(
                f"page size {page_size} is not a power of two from {fmt.MIN_PAGE_SIZE} to {fmt.MAX_PAGE_SIZE}"
            )
        self.path = Path(path)
        self.fields = tuple(fields)
        self.class_names = None if class_names is None else list(class_names)
        self.info = dict(info or {})
        self.keep_part = False
        self._may_grow = page_size is None
        small = fmt.MIN_PAGE_SIZE if expected_bytes < SMALL_FILE else fmt.DEFAULT_PAGE_SIZE
        self.page_size = page_size or small
        self._descriptors = fmt.pack_fields(self.fields)
        masks = MaskInfo.parse(self.info.get("masks"), self.path)
        columns = 0 if masks is None else 1 + (MAX_CLASSES if masks.classes is None else len(masks.classes))
        self._classes_known = masks is None or masks.classes is not None
        self._records = SampleRecords(capacity, self.fields, columns)
        self._image_field = next((i for i, field in enumerate(self.fields) if field.type_id == fmt.IMAGE_FIELD), None)
        head = fmt.metadata_offset(len(self.fields)) + self._records.metadata.nbytes
        self._position = fmt.round_up(head, self.page_size)
        self._mode = "rb+" if going_on else "wb"
        self._file: IO[bytes] | None = None
        self._flusher = ThreadPoolExecutor(1, thread_name_prefix="flush")
        self._flushing: Future[None] | None = None
        self._unflushed = 0
        self._completed = self._published = False

    def __enter__(self) -> "BetonWriter":
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = part_path(self.path).open(self._mode, buffering=0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None and not self._published:
                self.complete()
                publish(part_path(self.path), self.path)
                self.published()
        except BaseException:
            self._leave()
            raise
        if error is not None:
            self._leave()

    def _leave(self) -> None:
        """After an error: close the file, and remove it unless it is to be continued."""
        self._close()
        if not self.keep_part:
            with suppress(FileNotFoundError):
                part_path(self.path).unlink()

    def __len__(self) -> int:
        """Samples written so far."""
        return self._records.count

    def add(self, sample_id: str, values: Sequence[Value], original: Original | None = None) -> None:
        """Append one sample: one value a field, in the order of the fields.

        Args:
            original: what its first image was before it was converted.

        Raises:
            BetonError: the values do not fit the fields, or the sample does not fit a page.
            OSError: the disk is full, or cannot be written.
        """
        records, row = self._records, len(self)
        if row >= records.capacity:
            raise BetonError(f"{self.path}: more samples than the {records.capacity} that were announced")
        if len(values) != len(self.fields):
            raise BetonError(f"sample {sample_id!r} has {len(values)} values for {len(self.fields)} fields")
        regions = [region_of(value, spec, sample_id) for value, spec in zip(values, self.fields, strict=True)]
        lengths = [
            self._length(column, values[column], data) for column, data in enumerate(regions) if data is not None
        ]
        pointers = self._place(lengths, sample_id)
        others = xxhash.xxh3_64()
        region = 0
        for column, (value, spec, data) in enumerate(zip(values, self.fields, regions, strict=True)):
            pointer = size = 0
            if data is not None:
                pointer, size = pointers[region], memoryview(data).nbytes
                self._write(pointer, data)
                records.alloc[row, region] = (row, pointer, size)
                region += 1
                if column == self._image_field:
                    records.sizes[row], records.checksums[row] = size, checksum(data)
                    self._add_index(row, fmt.index_place(pointer, size), value)
                else:
                    others.update(data)
                if isinstance(value, EncodedMask):
                    records.mask_pixels[row] = value.counts
            records.metadata[f"f{column}"][row] = entry_of(value, spec, pointer, size)
        records.other_checksums[row] = others.intdigest()
        if original is not None:
            records.set_original(row, original)
        records.append_id(sample_id)

    def _length(self, column: int, value: Value, region: Data) -> int:
        """Bytes that a value takes in its page, with the index behind it."""
        length = memoryview(region).nbytes
        if column == self._image_field and isinstance(value, EncodedImage) and value.index:
            return fmt.index_place(0, length) + memoryview(value.index).nbytes
        return length

    def _add_index(self, row: int, place: int, value: Value) -> None:
        if isinstance(value, EncodedImage) and value.index:
            self._write(place, value.index)
            size = memoryview(value.index).nbytes
            self._records.index_sizes[row], self._records.index_checksums[row] = size, checksum(value.index)

    def _place(self, lengths: list[int], sample_id: str) -> list[int]:
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
            self._position = start + length
            start += fmt.round_up(length, fmt.REGION_ALIGNMENT)
        return pointers

    def _grow(self, needed: int, sample_id: str) -> None:
        if not self._may_grow or needed > fmt.MAX_PAGE_SIZE:
            advice = (
                f"--page-size {1 << (needed - 1).bit_length()}" if needed <= fmt.MAX_PAGE_SIZE else "--max-resolution"
            )
            raise BetonError(
                f"sample {sample_id!r} takes {needed} bytes and does not fit a page of {self.page_size}; use {advice}"
            )
        self.page_size = 1 << (needed - 1).bit_length()

    def _write(self, offset: int, data: Data) -> None:
        assert self._file is not None
        view = memoryview(data).cast("B")
        self._flush_ahead(view.nbytes)
        while view.nbytes:  # one call may write less than it was given
            written = os.pwrite(self._file.fileno(), view, offset)
            view, offset = view[written:], offset + written

    def _flush_ahead(self, coming: int) -> None:
        """Start bringing what was written to the disk, so that the next `sync` has little left to wait for."""
        assert self._file is not None
        self._unflushed += coming
        if self._unflushed >= FLUSH_EVERY and (self._flushing is None or self._flushing.done()):
            self._unflushed = 0
            self._flushing = self._flusher.submit(os.fsync, self._file.fileno())

    # ---- going on after an interruption ------------------------------------------------------------------------

    def sync(self) -> None:
        """Bring everything that was added to the disk."""
        assert self._file is not None
        if self._flushing is not None:
            self._flushing.result()  # an error of it must not get lost
        os.fsync(self._file.fileno())

    def snapshot(self, start: int) -> dict[str, Any]:
        """What `restore` needs of the samples from `start` on, and where the file stands."""
        return {"position": self._position, "page_size": self.page_size, "records": self._records.dump(start)}

    def restore(self, snapshots: Sequence[dict[str, Any]]) -> None:
        """Stand where the last of `snapshots` was taken; what the file holds beyond it is cut off.

        Raises:
            BetonError: the file has lost something that was in it then.
        """
        assert self._file is not None
        for snapshot in snapshots:
            self._records.load(snapshot["records"])
            self._position, self.page_size = snapshot["position"], snapshot["page_size"]
        if len(self) and os.fstat(self._file.fileno()).st_size < self._position:
            raise BetonError(
                f"{part_path(self.path)} is shorter than it was when the build was interrupted, so nothing of it can "
                "be used; build again"
            )
        self._file.truncate(self._position if len(self) else 0)

    # ---- the end of the file, then its beginning ---------------------------------------------------------------

    def complete(self) -> None:
        """Write trailer, table, metadata and, once all of that is on the disk, the header."""
        if self._completed:
            return
        if not len(self):
            raise BetonError(f"{self.path}: no sample was written, so there is no file")
        metadata = self._records.metadata[: len(self)]
        alloc = self._records.alloc[: len(self)]  # regions are placed in rising order: sorted by ptr
        start = fmt.round_up(self._position, self.page_size)
        sections = self._sections(alloc.size)
        lengths = {name: memoryview(data).nbytes for name, data in sections.items()}
        table_at = start + trailer_size(lengths, self.page_size)
        header = np.zeros(1, fmt.HEADER)
        header[0] = (fmt.VERSION, len(self.fields), self.page_size, len(self), table_at)
        rest = self._descriptors + metadata.tobytes()
        table = alloc.tobytes()
        digests = np.array([checksum(header.tobytes() + rest), checksum(table)], "<u8")
        body, footer = pack_trailer(sections | {"digests": digests.tobytes()}, start, self.page_size)
        self._write(start, body)
        self._write(table_at - len(footer), footer + table)
        self._write(fmt.HEADER.itemsize, rest)
        self.sync()
        self._write(0, header.tobytes())
        self.sync()
        self._completed = True

    def published(self) -> None:
        """The completed file has its name; there is nothing left to hold."""
        self._published = True
        self._close()

    def discard(self) -> None:
        """Close the file and remove it, whatever it holds."""
        self.keep_part = False
        self._leave()

    def _close(self) -> None:
        self._flusher.shutdown(wait=True)
        if self._file is not None:
            self._file.close()
            self._file = None

    def _sections(self, regions: int) -> dict[str, Data]:
        records, count = self._records, len(self)
        info = {
            "format": "fasttrain.beton",
            "samples": count,
            "regions": regions,
            "class_names": self.class_names,
            "original_kinds": records.kinds,
            **self.info,
            "complete": True,
        }
        sections: dict[str, Data] = {"json": json.dumps(info).encode(), "digests": bytes(16), **records.id_sections()}
        sections["image_sizes"] = records.sizes[:count].tobytes()
        sections["image_xxh3"] = records.checksums[:count].tobytes()
        if records.index_sizes[:count].any():
            sections["index_sizes"] = records.index_sizes[:count].tobytes()
            sections["index_xxh3"] = records.index_checksums[:count].tobytes()
        if records.alloc.shape[1] > (self._image_field is not None):
            sections["other_xxh3"] = records.other_checksums[:count].tobytes()
        if records.mask_pixels.size:
            sections["mask_pixels"] = self._mask_pixels().tobytes()
        if records.kinds:
            sections["originals"] = records.originals[:count].tobytes()
        return sections

    def _mask_pixels(self) -> np.ndarray:
        """Pixels of classes (N, C + 1); where nobody named the classes, up to the last one that occurs."""
        pixels = self._records.mask_pixels[: len(self)]
        if self._classes_known:
            return pixels
        used = np.flatnonzero(pixels[:, :-1].any(0))
        return np.delete(pixels, np.s_[int(used[-1]) + 1 if len(used) else 1 : -1], axis=1)
