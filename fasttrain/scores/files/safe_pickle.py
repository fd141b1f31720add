"""Pickles of NumPy arrays and plain containers, read without running code and without trusting their contents.

A list of allowed names is not enough: `numpy.dtype` and `numpy.ndarray` restore any state that a pickle gives them, so
a crafted one can make an array of objects out of raw bytes, that is, of addresses of its choice. So the few names that
arrays need are answered with stand-ins here, which build arrays of numbers or strings from checked dtypes.
"""

import pickle
import re
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from fasttrain.base.errors import ScoresError

_DTYPE = re.compile(r"[biufUS]\d{1,9}")


def load_pickle(file: Any) -> Any:
    """Contents of a pickle in a binary file object: dicts, lists, tuples, strings, numbers and NumPy arrays.

    Raises:
        ScoresError: the pickle wants anything else, or is damaged.
    """
    try:
        return _finished(_DataUnpickler(file).load())
    except ScoresError:
        raise
    except Exception as error:  # a damaged pickle raises nearly anything
        raise ScoresError(f"it is not a whole pickle of plain data ({type(error).__name__}: {error})") from None


class _Dtype:
    """Stands in for a `numpy.dtype` while it is restored."""

    def __init__(self, description: str) -> None:
        self.description, self.byte_order = description, "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.byte_order = state[1]

    def resolve(self) -> np.dtype[Any]:
        if not _DTYPE.fullmatch(self.description) or self.byte_order not in "<>=|":
            raise ScoresError(f"it holds an array of type {self.description!r}; only numbers and strings are read")
        return np.dtype((self.byte_order if self.byte_order != "|" else "") + self.description)


class _Array:
    """Stands in for a `numpy.ndarray` while it is restored; `value` is the real one."""

    value: Any = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, is_fortran, data = state
        if isinstance(data, list):  # an array of objects: as good as the list of them
            if len(shape) != 1:
                raise ScoresError("it holds a matrix of objects; only numbers and strings are read")
            self.value = data
            return
        self.value = _from_bytes(data, dtype, shape, "F" if is_fortran else "C")


def _from_bytes(data: bytes, dtype: _Dtype, shape: tuple[int, ...], order: Any) -> Any:
    values = np.frombuffer(data, dtype.resolve()) if data else np.empty(0, dtype.resolve())
    return values.reshape(shape, order=order)


def _array_from_buffer(data: bytes, dtype: _Dtype, shape: tuple[int, ...], order: str, *_: Any) -> _Array:
    array = _Array()
    array.value = _from_bytes(data, dtype, shape, order)
    return array


def _scalar(dtype: _Dtype, data: bytes) -> Any:
    return np.frombuffer(data, dtype.resolve(), 1)[0].item()


def _latin1(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise ScoresError(f"it wants the codec {encoding!r}, which no array needs")
    return text.encode("latin1")


class _StandIn:
    """A callable that a pickle can call but not change."""

    __slots__ = ("_function",)
    _function: Callable[..., Any]

    def __init__(self, function: Callable[..., Any]) -> None:
        object.__setattr__(self, "_function", function)

    def __setattr__(self, name: str, value: Any) -> None:
        raise ScoresError(f"it tries to change {name!r} of the reader")

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)


_NUMPY: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "dtype"): lambda description, *_: _Dtype(description),
    ("numpy", "ndarray"): lambda *_: _Array(),
    **{(f"numpy.{core}.multiarray", "_reconstruct"): lambda *_: _Array() for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _scalar for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _array_from_buffer for core in ("core", "_core")},
    ("_codecs", "encode"): _latin1,  # bytes in protocols 0 to 2 …
    **{(module, "bytes"): lambda: b"" for module in ("__builtin__", "builtins")},  # … and empty ones
    ("collections", "OrderedDict"): OrderedDict,
}


# The C unpickler makes room for every number below the largest that a pickle gives an object: one damaged byte, and it
# takes all memory. Python's own keeps a dict.
_PLAIN_UNPICKLER: Any = pickle._Unpickler


def _load_bytearray(unpickler: Any) -> None:
    """As pickle's own, which fills as many bytes as the pickle says before it looks whether there are any."""
    size = int.from_bytes(unpickler.read(8), "little")
    data = unpickler.read(size)
    if len(data) < size:
        raise pickle.UnpicklingError("an array is cut off")
    unpickler.append(bytearray(data))


class _DataUnpickler(_PLAIN_UNPICKLER):
    dispatch: ClassVar = {**_PLAIN_UNPICKLER.dispatch, pickle.BYTEARRAY8[0]: _load_bytearray}

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in for a name; any other name is refused before anything of it is imported."""
        if module.split(".")[0] == "torch":
            raise ScoresError("it holds torch tensors, which are not read; save NumPy arrays (tensor.numpy()) instead")
        if (module, name) not in _NUMPY:
            raise ScoresError(
                f"it wants {module}.{name}, which is neither a NumPy array nor a plain container, so it is not read; "
                "save the scores as .npz or .csv instead"
            )
        return _StandIn(_NUMPY[module, name])


def _finished(value: Any) -> Any:
    """The same contents with real arrays in the place of their stand-ins."""
    if isinstance(value, _Array):
        return _finished(value.value) if isinstance(value.value, list) else value.value
    if isinstance(value, dict):
        return {key: _finished(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_finished(item) for item in value)
    if isinstance(value, _Dtype | _StandIn):
        raise ScoresError("it holds something that is neither an array nor a plain value")
    return value
