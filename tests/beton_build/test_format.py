"""The NumPy structures against the published layout of version 2."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fasttrain.base.errors import BetonError
from fasttrain.beton_build import format as fmt

IMG, INT, FLOAT, BYTES = fmt.IMAGE_FIELD, fmt.INT_FIELD, fmt.FLOAT_FIELD, fmt.BYTES_FIELD
ND, JSON, TENSOR = fmt.NDARRAY_FIELD, fmt.JSON_FIELD, fmt.TENSOR_FIELD


def specs(*types: int) -> list[fmt.FieldSpec]:
    return [fmt.FieldSpec(f"field{index}", type_id) for index, type_id in enumerate(types)]


def test_sizes_of_the_fixed_structures() -> None:
    assert (fmt.HEADER.itemsize, fmt.FIELD.itemsize, fmt.ALLOC.itemsize, fmt.IMAGE.itemsize) == (24, 1041, 24, 13)
    assert fmt.metadata_offset(2) == 24 + 2 * 1041


@pytest.mark.parametrize(
    ("types", "size", "offsets"),
    [
        ((IMG, INT), 24, (0, 16)),
        ((IMG,), 13, (0,)),
        ((IMG, BYTES), 29, (0, 13)),
        ((IMG, IMG, INT), 40, (0, 13, 32)),
        ((BYTES, IMG, INT), 40, (0, 16, 32)),
        ((IMG, INT, FLOAT, BYTES, ND, JSON, TENSOR), 80, (0, 16, 24, 32, 48, 56, 72)),
    ],
)
def test_metadata_records_of_ffcv(types: tuple[int, ...], size: int, offsets: tuple[int, ...]) -> None:
    record = fmt.metadata_dtype(specs(*types))
    assert record.itemsize == size
    assert tuple(record.fields[name][1] for name in record.names) == offsets  # type: ignore[index, union-attr]


@given(st.lists(st.sampled_from([IMG, INT, FLOAT, BYTES, ND, JSON, TENSOR]), min_size=1, max_size=12))
def test_metadata_records_are_those_of_numpy(types: list[int]) -> None:
    # FFCV leaves the placing to NumPy: packed structures have alignment 1, numbers that of C.
    entries = {IMG: fmt.IMAGE, BYTES: fmt.BYTES, JSON: fmt.BYTES, INT: "<i8", FLOAT: "<f8", ND: "<u8", TENSOR: "<u8"}
    expected = np.dtype([("", entries[type_id]) for type_id in types], align=True)
    record = fmt.metadata_dtype(specs(*types))
    assert (record.itemsize, record.fields) == (expected.itemsize, expected.fields)


names = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=16)


@given(st.lists(st.tuples(names, st.integers(0, 6)), min_size=1, max_size=5, unique_by=lambda pair: pair[0]))
def test_descriptors_round_trip(pairs: list[tuple[str, int]]) -> None:
    fields = tuple(fmt.FieldSpec(*pair) for pair in pairs)
    data = fmt.pack_fields(fields)
    assert len(data) == 1041 * len(fields)
    assert fmt.unpack_fields(data, len(fields)) == fields


@pytest.mark.parametrize("name", ["", "a_name_of_seventeen", "größe", "nul\0"])
def test_names_that_ffcv_would_mangle_are_refused(name: str) -> None:
    with pytest.raises(BetonError, match="16 ASCII"):
        fmt.pack_fields([fmt.FieldSpec(name, IMG)])


def test_equal_names_are_refused() -> None:
    with pytest.raises(BetonError, match="not unique"):
        fmt.pack_fields([fmt.FieldSpec("a", IMG), fmt.FieldSpec("a", INT)])


def test_custom_fields_cannot_be_laid_out() -> None:
    with pytest.raises(BetonError, match="'field1' is of custom type"):
        fmt.metadata_dtype(specs(IMG, fmt.CUSTOM_FIELD))


def test_page_sizes() -> None:
    assert all(fmt.is_page_size(1 << bits) for bits in range(21, 32))
    assert not any(fmt.is_page_size(size) for size in (0, 1 << 20, (1 << 21) + 1, 1 << 32))
