"""The values of a sample's fields as they lie in the file: numbers in the metadata, all else as regions of bytes."""

import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from fasttrain.base.errors import BetonError
from fasttrain.beton_build import format as fmt
from fasttrain.beton_build.trailer import Data


@dataclass(frozen=True)
class EncodedImage:
    """An image as it is stored: a JPEG stream (mode 0), or raw (height, width, 3) uint8 RGB pixels (mode 1).

    `index` is the random-access index of a JPEG, 8 bytes an entry; empty without one.
    """

    data: Data
    mode: int
    width: int
    height: int
    index: Data = b""


@dataclass(frozen=True)
class EncodedMask:
    """A mask as it is stored: height x width uint8 class numbers, and how many pixels each class has.

    `counts` is (classes + 1,) uint32; the last are the pixels that count for nothing.
    """

    data: bytes
    width: int
    height: int
    counts: np.ndarray


# What a field takes: image, int, float, bytes, ndarray (array and tensor fields), or any JSON value.
Value = EncodedImage | EncodedMask | int | float | bytes | np.ndarray | dict[str, Any] | list[Any] | str | bool | None


def region_of(value: Value, spec: fmt.FieldSpec, sample_id: str) -> Data | None:
    """The bytes of a value that go into a page, None for a number, which lies in the metadata.

    Raises:
        BetonError: the value does not fit the field.
    """
    match spec.type_id:
        case fmt.IMAGE_FIELD if isinstance(value, EncodedImage):
            return _image_region(value, sample_id)
        case fmt.BYTES_FIELD if isinstance(value, bytes):
            return value or b"\0"  # an empty region would share its offset with the next one
        case fmt.BYTES_FIELD if isinstance(value, EncodedMask):
            return value.data
        case fmt.JSON_FIELD:
            return _json_region(value, spec, sample_id)
        case fmt.NDARRAY_FIELD | fmt.TENSOR_FIELD if isinstance(value, np.ndarray):
            if (value.dtype.str, value.shape) == (spec.dtype, spec.shape):
                return np.ascontiguousarray(value).tobytes()
            raise BetonError(
                f"sample {sample_id!r}: an array of type {value.dtype.str} and shape {value.shape} does not fit field "
                f"{spec.describe()}"
            )
        case fmt.FLOAT_FIELD if isinstance(value, int | float | np.integer | np.floating):
            return None
        case fmt.INT_FIELD if _is_int64(value):
            return None
    raise BetonError(
        f"sample {sample_id!r}: a {type(value).__name__} does not fit field {spec.name!r} ({spec.type_name})"
    )


def _is_int64(value: Value) -> bool:
    whole = isinstance(value, int | np.integer) or (isinstance(value, float | np.floating) and value.is_integer())
    return whole and -(1 << 63) <= int(value) < 1 << 63  # type: ignore[arg-type]


def _image_region(value: EncodedImage, sample_id: str) -> Data:
    if not (0 < value.width <= fmt.MAX_SIDE and 0 < value.height <= fmt.MAX_SIDE):
        raise BetonError(
            f"sample {sample_id!r} is {value.width}x{value.height} pixels; sides go up to {fmt.MAX_SIDE}: "
            "use --max-resolution"
        )
    return value.data


def _json_region(value: Value, spec: fmt.FieldSpec, sample_id: str) -> bytes:
    try:
        return json.dumps(value).encode() + b"\0"  # FFCV ends JSON with a zero byte, counted in the size
    except (TypeError, ValueError) as error:
        raise BetonError(f"sample {sample_id!r}: field {spec.name!r} takes JSON values: {error}") from None


def entry_of(value: Value, spec: fmt.FieldSpec, pointer: int, size: int) -> Any:
    """The metadata entry of a value whose region is `size` bytes at `pointer`."""
    match spec.type_id:
        case fmt.IMAGE_FIELD:
            assert isinstance(value, EncodedImage)
            return (value.mode, value.width, value.height, pointer)
        case fmt.BYTES_FIELD | fmt.JSON_FIELD:
            return (pointer, size)
        case fmt.NDARRAY_FIELD | fmt.TENSOR_FIELD:
            return pointer
    return value


def span_of(entry: Any, spec: fmt.FieldSpec) -> tuple[int, int]:
    """Offset and size of the region of a bytes, JSON or array entry."""
    if spec.is_array:
        return int(entry), spec.array_bytes
    return int(entry["ptr"]), int(entry["size"])


def decode_region(data: memoryview, spec: fmt.FieldSpec) -> Any:
    """The value in a region: bytes, a JSON value, or a read-only array.

    Raises:
        ValueError: the region holds no such value.
    """
    if spec.is_array:
        return np.frombuffer(data, spec.dtype).reshape(spec.shape)
    if spec.type_id == fmt.JSON_FIELD:
        try:
            return json.loads(bytes(data).split(b"\0", 1)[0])
        except RecursionError:
            raise ValueError("its JSON is nested too deep") from None
    return bytes(data)
