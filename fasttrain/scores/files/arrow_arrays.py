"""Numbers and strings between Arrow and NumPy, by their buffers.

pyarrow's own ways (``to_numpy``, ``pyarrow.array``, ``fill_null``) look for pandas first, and importing that takes
longer than most commands do; ``flatten`` and the like import all of ``pyarrow.compute``.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa


def to_numpy(array: pa.Array, fill: int = 0) -> np.ndarray:
    """An array of numbers as a read-only view; a copy with `fill` for nulls where there are any."""
    dtype = np.dtype(array.type.to_pandas_dtype())
    valid, values = array.buffers()
    if not len(array):
        return np.empty(0, dtype)
    view = np.frombuffer(values, dtype, len(array), array.offset * dtype.itemsize)
    if not array.null_count:
        return view
    bits = np.frombuffer(valid, np.uint8)
    known = np.unpackbits(bits, count=array.offset + len(array), bitorder="little")[array.offset :]
    return np.where(known.astype(bool), view, dtype.type(fill))


def to_arrow(values: np.ndarray, known: np.ndarray | None = None) -> pa.Array:
    """(N,) numbers without a copy; null where `known` (N,) bool is given and False."""
    values = np.ascontiguousarray(values)
    bits = None
    if known is not None and not known.all():
        bits = pa.py_buffer(np.packbits(known, bitorder="little"))
    return pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), len(values), [bits, pa.py_buffer(values)])


def strings(values: Sequence[str]) -> pa.Array:
    """(N,) strings, copied."""
    encoded = [value.encode() for value in values]
    offsets = np.zeros(len(encoded) + 1, np.int64)
    np.cumsum([len(value) for value in encoded], out=offsets[1:])
    if offsets[-1] > np.iinfo(np.int32).max:
        return pa.array(values, pa.string())  # its error says what is too long
    buffers = pa.py_buffer(offsets.astype(np.int32)), pa.py_buffer(b"".join(encoded))
    return pa.StringArray.from_buffers(len(encoded), *buffers)


def entries(lists: pa.Array) -> pa.Array:
    """The (N * C,) numbers of N lists of equal size; of other lists all that they hold."""
    if not pa.types.is_fixed_size_list(lists.type) or lists.null_count:
        return lists.flatten()
    size = lists.type.list_size
    return lists.values.slice(lists.offset * size, len(lists) * size)


def as_one(column: pa.ChunkedArray) -> pa.Array:
    """A column as one array: as it lies in the file if that is one batch, as those of ours are; else a copy."""
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
