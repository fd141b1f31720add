"""What a writer remembers of its samples until the end of the file is written: arrays, no Python object a sample."""

import itertools
import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xxhash

from fasttrain.beton_build import format as fmt
from fasttrain.beton_build.trailer import Data, encode_id

ORIGINAL = np.dtype([("width", "<u4"), ("height", "<u4"), ("kind", "<u4")])
_COUNTS = struct.Struct("<QQQ")  # samples, bytes of the ids, bytes of the kinds


@dataclass(frozen=True)
class Original:
    """What an image was before it was converted: its size in pixels, and its format and mode, as ``PNG RGBA``."""

    width: int
    height: int
    kind: str


class SampleRecords:
    """The records of up to `capacity` samples.

    Attributes:
        metadata: (capacity,) records of format.metadata_dtype.
        alloc: (capacity, regions a sample) records of format.ALLOC.
        sizes, checksums: (capacity,) uint64: bytes and xxh3-64 of each sample's first image.
        index_sizes, index_checksums: the same of the random-access index of that image; size 0 without one.
        other_checksums: (capacity,) uint64: xxh3-64 of all its other regions together.
        originals: (capacity,) records of `ORIGINAL`; kind indexes `kinds`.
        mask_pixels: (capacity, mask_columns) uint32: pixels of each class in each mask.
    """

    def __init__(self, capacity: int, fields: Sequence[fmt.FieldSpec], mask_columns: int = 0) -> None:
        regions = sum(field.has_region for field in fields)
        self.count = 0
        self.metadata = np.zeros(capacity, fmt.metadata_dtype(fields))
        self.alloc = np.zeros((capacity, regions), fmt.ALLOC)
        self.sizes = np.zeros(capacity, "<u8")
        self.checksums = np.zeros(capacity, "<u8")
        self.index_sizes = np.zeros(capacity, "<u8")
        self.index_checksums = np.zeros(capacity, "<u8")
        self.other_checksums = np.zeros(capacity, "<u8")
        self.originals = np.zeros(capacity, ORIGINAL)
        self.mask_pixels = np.zeros((capacity, mask_columns), "<u4")
        self.kinds: list[str] = []
        self._ids = bytearray()
        self._id_ends = np.zeros(capacity, "<u8")

    @property
    def capacity(self) -> int:
        return len(self.metadata)

    def append_id(self, sample_id: str) -> None:
        """Count one more sample; its other records were set before."""
        self._ids += encode_id(sample_id)
        self._id_ends[self.count] = len(self._ids)
        self.count += 1

    def set_original(self, row: int, original: Original) -> None:
        """Remember what the image of `row` was."""
        if original.kind not in self.kinds:
            self.kinds.append(original.kind)
        self.originals[row] = (original.width, original.height, self.kinds.index(original.kind))

    # ---- for the end of the file -------------------------------------------------------------------------------

    def id_sections(self) -> dict[str, Data]:
        """The trailer's sections about string ids: offsets, the ids themselves, the keys."""
        ends = self._id_ends[: self.count]
        offsets = np.concatenate([np.zeros(1, "<u8"), ends])
        view = memoryview(self._ids)
        spans = itertools.pairwise(offsets.tolist())
        keys = np.fromiter((xxhash.xxh3_64_intdigest(view[start:stop]) for start, stop in spans), "<u8", self.count)
        return {"id_offsets": offsets.tobytes(), "id_blob": bytes(self._ids), "keys": keys.tobytes()}

    # ---- for going on after an interruption --------------------------------------------------------------------

    def dump(self, start: int) -> bytes:
        """The records of the samples from `start` on."""
        first = int(self._id_ends[start - 1]) if start else 0
        ids, kinds = bytes(self._ids[first:]), json.dumps(self.kinds).encode()
        parts = [_COUNTS.pack(self.count - start, len(ids), len(kinds)), ids, kinds]
        return b"".join(parts + [array[start : self.count].tobytes() for array in self._arrays()])

    def load(self, data: bytes) -> None:
        """Append what `dump` gave."""
        count, id_bytes, kind_bytes = _COUNTS.unpack_from(data)
        position = _COUNTS.size + id_bytes
        self._ids += data[_COUNTS.size : position]
        self.kinds = json.loads(data[position : position + kind_bytes])
        position += kind_bytes
        for array in self._arrays():
            target = array[self.count : self.count + count]
            target[...] = np.frombuffer(data, target.dtype, target.size, position).reshape(target.shape)
            position += target.nbytes
        self.count += count

    def _arrays(self) -> list[np.ndarray[Any, Any]]:
        return [
            self.metadata,
            self.alloc,
            self.sizes,
            self.checksums,
            self.index_sizes,
            self.index_checksums,
            self.other_checksums,
            self.originals,
            self._id_ends,
            *([self.mask_pixels] if self.mask_pixels.size else []),
        ]
