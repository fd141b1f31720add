"""The `.beton` file, version 2, as NumPy structures: header, field descriptors, metadata records, allocation table.

All integers are little-endian. The layout is that of FFCV 1.0.2 (https://github.com/libffcv/ffcv):

    0                       header                      24 bytes
    24                      one descriptor a field      1041 bytes each
    M                       one metadata record a sample
    D                       pages, all of full size
    header.alloc_table_ptr  allocation table, up to the end of the file
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fasttrain.base.errors import BetonError

VERSION = 2
MIN_PAGE_SIZE = 1 << 21
MAX_PAGE_SIZE = 1 << 31  # the header's field is 32 bits wide and FFCV wants a power of two
DEFAULT_PAGE_SIZE = 1 << 23  # FFCV's own default
REGION_ALIGNMENT = 64  # start of every region inside its page: raw pixels can be loaded as whole vectors
MAX_SIDE = 65_535  # image sides are stored in 16 bits

HEADER = np.dtype(
    [
        ("version", "<u2"),
        ("num_fields", "<u2"),
        ("page_size", "<u4"),
        ("num_samples", "<u8"),
        ("alloc_table_ptr", "<u8"),
    ]
)
FIELD = np.dtype([("type_id", "u1"), ("name", "V16"), ("arguments", "V1024")])
ALLOC = np.dtype([("sample_id", "<u8"), ("ptr", "<u8"), ("size", "<u8")])
IMAGE = np.dtype([("mode", "u1"), ("width", "<u2"), ("height", "<u2"), ("data_ptr", "<u8")])
BYTES = np.dtype([("ptr", "<u8"), ("size", "<u8")])

FLOAT_FIELD, INT_FIELD, IMAGE_FIELD, BYTES_FIELD, NDARRAY_FIELD, JSON_FIELD, TENSOR_FIELD, CUSTOM_FIELD = (
    *range(7),
    255,
)
TYPE_NAMES = {
    FLOAT_FIELD: "float",
    INT_FIELD: "int",
    IMAGE_FIELD: "image",
    BYTES_FIELD: "bytes",
    NDARRAY_FIELD: "ndarray",
    JSON_FIELD: "json",
    TENSOR_FIELD: "tensor",
    CUSTOM_FIELD: "custom",
}
MODE_JPG, MODE_RAW = 0, 1

# (type of the metadata entry, its alignment in the record)
_ENTRIES: dict[int, tuple[np.dtype[Any], int]] = {
    FLOAT_FIELD: (np.dtype("<f8"), 8),
    INT_FIELD: (np.dtype("<i8"), 8),
    IMAGE_FIELD: (IMAGE, 1),
    BYTES_FIELD: (BYTES, 1),
    NDARRAY_FIELD: (np.dtype("<u8"), 8),
    JSON_FIELD: (BYTES, 1),
    TENSOR_FIELD: (np.dtype("<u8"), 8),
}
NAME_BYTES = 16


@dataclass(frozen=True)
class FieldSpec:
    """One field of every sample: its name (at most 16 ASCII characters) and FFCV's type number."""

    name: str
    type_id: int

    @property
    def type_name(self) -> str:
        return TYPE_NAMES.get(self.type_id, f"type {self.type_id}")


IMAGE_AND_LABEL = (FieldSpec("image", IMAGE_FIELD), FieldSpec("label", INT_FIELD))


def round_up(value: int, step: int) -> int:
    """The smallest multiple of `step` that is not below `value`."""
    return -(-value // step) * step


def is_page_size(value: int) -> bool:
    """Whether FFCV takes `value` as a page size: a power of two from 2 MiB to 2 GiB."""
    return MIN_PAGE_SIZE <= value <= MAX_PAGE_SIZE and value & (value - 1) == 0


def metadata_offset(num_fields: int) -> int:
    """Byte offset of the first metadata record."""
    return HEADER.itemsize + FIELD.itemsize * num_fields


def metadata_dtype(fields: Sequence[FieldSpec]) -> np.dtype[Any]:
    """The metadata record of `fields`, members named f0, f1, …; padding only before 8-aligned members, and at the end.

    Raises:
        BetonError: a field's type has no known record (a custom field class of FFCV).
    """
    position, widest, offsets, formats = 0, 1, [], []
    for field in fields:
        if field.type_id not in _ENTRIES:
            raise BetonError(
                f"field {field.name!r} is of {field.type_name} type, whose records only its writer can read"
            )
        entry, alignment = _ENTRIES[field.type_id]
        position = round_up(position, alignment)
        offsets.append(position)
        formats.append(entry)
        position += entry.itemsize
        widest = max(widest, alignment)
    names = [f"f{index}" for index in range(len(fields))]
    itemsize = round_up(position, widest)
    return np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": itemsize})


def pack_fields(fields: Sequence[FieldSpec]) -> bytes:
    """The descriptors of `fields`, 1041 bytes each.

    Raises:
        BetonError: a name is empty, not ASCII, over 16 bytes (FFCV would cut it silently), or used twice.
    """
    records = np.zeros(len(fields), FIELD)
    for index, field in enumerate(fields):
        name = field.name.encode("ascii", "replace")
        if not name or len(name) > NAME_BYTES or not field.name.isascii() or "\0" in field.name:
            raise BetonError(f"field name {field.name!r} is not 1 to {NAME_BYTES} ASCII characters")
        records[index]["type_id"] = field.type_id
        records[index]["name"] = np.void(name.ljust(NAME_BYTES, b"\0"))
    if len({field.name for field in fields}) < len(fields):
        raise BetonError(f"field names are not unique: {', '.join(field.name for field in fields)}")
    return records.tobytes()


def unpack_fields(data: bytes | memoryview, count: int) -> tuple[FieldSpec, ...]:
    """The field specifications in `count` descriptors."""
    records = np.frombuffer(data, FIELD, count)
    names = [record["name"].tobytes().split(b"\0", 1)[0].decode("ascii", "replace") for record in records]
    return tuple(FieldSpec(name, int(type_id)) for name, type_id in zip(names, records["type_id"], strict=True))
