"""The `.beton` file, version 2, as NumPy structures: header, field descriptors, metadata records, allocation table.

All integers are little-endian. The layout is that of FFCV 1.0.2 (https://github.com/libffcv/ffcv):

    0                       header                      24 bytes
    24                      one descriptor a field      1041 bytes each
    M                       one metadata record a sample
    D                       pages, all of full size
    header.alloc_table_ptr  allocation table, up to the end of the file
"""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fasttrain.base.errors import BetonError

VERSION = 2
MIN_PAGE_SIZE = 1 << 21
MAX_PAGE_SIZE = 1 << 31  # the header's field is 32 bits wide and FFCV wants a power of two
DEFAULT_PAGE_SIZE = 1 << 23  # FFCV's own default
INDEX_ALIGNMENT = 8  # start of a random-access index behind its image; FFCV never looks there
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


# The arguments of an array field: shape (ended by a zero), length of the type's description, then the description.
_ARRAY = np.dtype([("shape", "<u8", 32), ("type_length", "<u8")])
MAX_DIMENSIONS = 32
_ARRAY_TYPE = re.compile(r"[<>|=][biufc]\d{1,2}|[<>|=]U\d{1,6}|[<>|=]S\d{1,6}|[<>][mM]8\[\w{1,3}\]")


@dataclass(frozen=True)
class FieldSpec:
    """One field of every sample.

    Attributes:
        name: at most 16 ASCII characters.
        type_id: FFCV's type number.
        shape, dtype: of the arrays of an ndarray or tensor field; NumPy's short type string, as ``<f4``.
    """

    name: str
    type_id: int
    shape: tuple[int, ...] = ()
    dtype: str = ""

    @property
    def type_name(self) -> str:
        return TYPE_NAMES.get(self.type_id, f"type {self.type_id}")

    @property
    def is_array(self) -> bool:
        return self.type_id in (NDARRAY_FIELD, TENSOR_FIELD)

    @property
    def has_region(self) -> bool:
        """Whether the values lie in the pages (numbers lie in the metadata)."""
        return self.type_id not in (INT_FIELD, FLOAT_FIELD)

    @property
    def array_bytes(self) -> int:
        """Bytes of an array of this field.

        Raises:
            BetonError: the file does not tell its type in a way that can be read.
        """
        if not self.dtype:
            raise BetonError(f"the arrays of field {self.name!r} are of a type that cannot be read")
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    def describe(self) -> str:
        """``label (int)``, ``mask (ndarray <f4 3x4)``."""
        array = f" {self.dtype or '?'} {'x'.join(map(str, self.shape))}" if self.is_array else ""
        return f"{self.name} ({self.type_name}{array})"


def array_field(name: str, dtype: np.dtype[Any] | str, shape: Sequence[int], tensor: bool = False) -> FieldSpec:
    """An ndarray field, or a tensor field, of arrays of one type and shape.

    Raises:
        BetonError: FFCV cannot read such arrays: structured types, no dimension, more than 32, one of length 0.
    """
    kind = np.dtype(dtype)
    if not _ARRAY_TYPE.fullmatch(kind.str) or not kind.itemsize:
        raise BetonError(f"field {name!r}: arrays of type {kind} cannot be stored, only plain numbers and text")
    if not 0 < len(shape) <= MAX_DIMENSIONS or min(shape) < 1:
        raise BetonError(f"field {name!r}: arrays of shape {tuple(shape)} cannot be stored; sides must be 1 or more")
    return FieldSpec(name, TENSOR_FIELD if tensor else NDARRAY_FIELD, tuple(map(int, shape)), kind.str)


IMAGE_AND_LABEL = (FieldSpec("image", IMAGE_FIELD), FieldSpec("label", INT_FIELD))


def round_up(value: int, step: int) -> int:
    """The smallest multiple of `step` that is not below `value`."""
    return -(-value // step) * step


def index_place(offset: int, size: int) -> int:
    """Where the random-access index of the image of `size` bytes at `offset` lies."""
    return round_up(offset + size, INDEX_ALIGNMENT)


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
        if field.is_array:
            records[index]["arguments"] = np.void(_pack_array(field).ljust(1024, b"\0"))
    if len({field.name for field in fields}) < len(fields):
        raise BetonError(f"field names are not unique: {', '.join(field.name for field in fields)}")
    return records.tobytes()


def _pack_array(field: FieldSpec) -> bytes:
    description = json.dumps([["", field.dtype]]).encode("ascii")
    arguments = np.zeros(1, _ARRAY)
    arguments["shape"][0, : len(field.shape)] = field.shape
    arguments["type_length"] = len(description)
    return arguments.tobytes() + description


def unpack_fields(data: bytes | memoryview, count: int) -> tuple[FieldSpec, ...]:
    """The field specifications in `count` descriptors."""
    return tuple(_unpack_field(record) for record in np.frombuffer(data, FIELD, count))


def _unpack_field(record: np.void) -> FieldSpec:
    name = record["name"].tobytes().split(b"\0", 1)[0].decode("ascii", "replace")
    field = FieldSpec(name, int(record["type_id"]))
    if not field.is_array:
        return field
    arguments = record["arguments"].tobytes()
    head = np.frombuffer(arguments, _ARRAY, 1)[0]
    sides = head["shape"].tolist()
    shape = tuple(sides[: sides.index(0)] if 0 in sides else sides)
    return FieldSpec(name, field.type_id, shape, _array_type(arguments[_ARRAY.itemsize :][: int(head["type_length"])]))


def _array_type(description: bytes) -> str:
    """NumPy's type string in an array field's description, "" when it is of no kind that can be read safely."""
    try:
        [[_, kind]] = json.loads(description)
    except (ValueError, TypeError, RecursionError):
        return ""
    readable = isinstance(kind, str) and _ARRAY_TYPE.fullmatch(kind) is not None
    try:
        return np.dtype(kind).str if readable else ""
    except TypeError:
        return ""
