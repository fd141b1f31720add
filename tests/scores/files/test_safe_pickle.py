"""Pickles as data: everything that NumPy writes comes through, nothing else does."""

import io
import pickle
import tracemalloc
from collections import OrderedDict
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fasttrain.base.errors import ScoresError
from fasttrain.scores.files.safe_pickle import load_pickle


def loaded(value: object, protocol: int = 4) -> object:
    return load_pickle(io.BytesIO(pickle.dumps(value, protocol)))


class Calls:
    """Pickles as a call of `function`, then as setting `state`."""

    def __init__(self, function, *arguments, state=None):
        self.parts = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.parts


@settings(max_examples=60)
@given(
    st.sampled_from(["f2", "f4", ">f8", "i8", "u1", "?", "U5", "S3"]),
    st.lists(st.integers(0, 3), min_size=1, max_size=3),
    st.sampled_from("CF"),
    st.integers(0, pickle.HIGHEST_PROTOCOL),
)
def test_arrays_come_through_bit_for_bit(dtype, shape, order, protocol):
    array = np.arange(int(np.prod(shape))).reshape(shape).astype(dtype, order=order)
    back = loaded({"a": [array]}, protocol)["a"][0]
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, array)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_scalars_and_containers_come_through(protocol):
    names = np.array(["a", "b"], dtype=object)
    value = OrderedDict(x=np.float32(0.5), y=(1, "two", [None, b"\xff"]), names=names)
    assert loaded(value, protocol) == {"x": 0.5, "y": (1, "two", [None, b"\xff"]), "names": ["a", "b"]}


def test_arrays_cannot_be_made_of_addresses():
    """NumPy restores any state of a dtype, so a crafted one turns raw bytes into references to objects."""
    dtype = Calls(np.dtype, "O8", False, True, state=(3, "|", None, None, None, -1, -1, 0))
    rebuild = np.zeros(0).__reduce__()[0]
    crafted = Calls(rebuild, np.ndarray, (0,), b"b", state=(1, (1,), dtype, False, b"\x41" * 8))
    for value in (crafted, Calls(np.dtype, "f8,O8", False, True), dtype):
        with pytest.raises(ScoresError):
            loaded(value)


def test_sizes_must_match_the_bytes():
    dtype = Calls(np.dtype, "f4", False, True, state=(3, "<", None, None, None, -1, -1, 0))
    rebuild = np.zeros(0).__reduce__()[0]
    with pytest.raises(ScoresError, match="not a whole pickle"):
        loaded(Calls(rebuild, np.ndarray, (0,), b"b", state=(1, (1000, 1000), dtype, False, b"1234")))


def test_the_reader_cannot_be_changed():
    # BUILD on a name: state would be set as attributes of what the name stands for.
    for attributes in (b"}", b"(N}X\x09\x00\x00\x00_functionN\x73t"):
        content = b"\x80\x04cnumpy\ndtype\n" + attributes + b"b."
        with pytest.raises(ScoresError):
            load_pickle(io.BytesIO(content))
    np.testing.assert_array_equal(loaded(np.ones(3)), np.ones(3))


def test_names_are_refused_before_they_are_imported():
    for content in (b"cantigravity\nfly\n.", b"\x80\x04cos\nsystem\nX\x04\x00\x00\x00true\x85R.", b"cnumpy\nload\n."):
        with pytest.raises(ScoresError, match="neither a NumPy array nor a plain container"):
            load_pickle(io.BytesIO(content))


def test_torch_tensors_get_a_sentence_of_their_own():
    with pytest.raises(ScoresError, match=r"torch tensors.*tensor\.numpy"):
        load_pickle(io.BytesIO(b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n."))


@settings(max_examples=80)
@given(st.integers(0, 400), st.integers(0, 255))
def test_damage_is_a_sentence_or_harmless(position, byte):
    content = bytearray(pickle.dumps({"a": np.arange(6, dtype=np.float32), "b": np.float64(1)}, 4))
    content[position % len(content)] = byte
    for damaged in (bytes(content), bytes(content[: position % len(content)])):
        with suppress(ScoresError):
            load_pickle(io.BytesIO(damaged))


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x02]r\xff\xff\xff\xff.",  # an empty list, remembered as number 4,294,967,295
        b"\x80\x05\x96" + (1 << 33).to_bytes(8, "little") + b"\0.",  # a bytearray of 8 GB that is not there
    ],
)
def test_what_a_pickle_claims_takes_no_memory(content):
    tracemalloc.start()
    try:
        with suppress(ScoresError):
            load_pickle(io.BytesIO(content))
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
