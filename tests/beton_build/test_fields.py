"""All field types of the format: what is written is read back, in random sets, sizes and page sizes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fasttrain.base.errors import BetonError
from fasttrain.beton_build import format as fmt
from fasttrain.beton_build.reader import BetonReader
from fasttrain.beton_build.values import EncodedImage
from fasttrain.beton_build.verify import verify
from fasttrain.beton_build.writer import BetonWriter

DTYPES = ["<f4", "<f8", "<i2", "<i8", "|u1", "<f2", "|b1", "<c8"]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@st.composite
def fields(draw: st.DrawFn) -> fmt.FieldSpec:
    """A field of any type, without a name yet."""
    type_id = draw(st.integers(0, 6))
    if type_id in (fmt.NDARRAY_FIELD, fmt.TENSOR_FIELD):
        shape = draw(st.lists(st.integers(1, 9), min_size=1, max_size=4))
        return fmt.array_field("x", draw(st.sampled_from(DTYPES)), shape, tensor=type_id == fmt.TENSOR_FIELD)
    return fmt.FieldSpec("x", type_id)


@st.composite
def values(draw: st.DrawFn, spec: fmt.FieldSpec) -> Any:
    """A value that fits a field."""
    if spec.type_id == fmt.IMAGE_FIELD:
        width, height = draw(st.integers(1, 300)), draw(st.integers(1, 300))
        return EncodedImage(draw(st.binary(min_size=1, max_size=1)) * (width * height * 3), fmt.MODE_RAW, width, height)
    if spec.is_array:
        seed = draw(st.integers(0, 1000))
        raw = np.random.default_rng(seed).integers(0, 2, spec.array_bytes, dtype=np.uint8)
        return raw.view(spec.dtype).reshape(spec.shape)
    kinds: dict[int, st.SearchStrategy[Any]] = {
        fmt.INT_FIELD: st.integers(-(2**63), 2**63 - 1),
        fmt.FLOAT_FIELD: st.floats(allow_nan=False),
        fmt.BYTES_FIELD: st.binary(min_size=1, max_size=5000),
        fmt.JSON_FIELD: json_values,
    }
    return draw(kinds[spec.type_id])


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(data=st.data(), drawn=st.lists(fields(), min_size=1, max_size=7), count=st.integers(1, 12))
def test_any_set_of_fields(tmp_path: Path, data: st.DataObject, drawn: list[fmt.FieldSpec], count: int) -> None:
    specs = [fmt.FieldSpec(f"field {i}", spec.type_id, spec.shape, spec.dtype) for i, spec in enumerate(drawn)]
    samples = [[data.draw(values(spec)) for spec in specs] for _ in range(count)]
    page_size = data.draw(st.sampled_from([None, 1 << 21, 1 << 23]))
    with BetonWriter(tmp_path / "a.beton", count, specs, page_size=page_size) as writer:
        for row, sample in enumerate(samples):
            writer.add(f"s{row}", sample)
    with BetonReader(tmp_path / "a.beton") as reader:
        assert reader.fields == tuple(specs)
        reader.check_structure()
        for row, sample in enumerate(samples):
            for spec, expected in zip(specs, sample, strict=True):
                found = reader.value(row, spec.name)
                if isinstance(expected, EncodedImage):
                    assert (bytes(found.data), found.width, found.height) == (
                        expected.data,
                        expected.width,
                        expected.height,
                    )
                elif isinstance(expected, np.ndarray):
                    assert found.dtype.str == spec.dtype and found.tobytes() == expected.tobytes()
                else:
                    assert found == expected
        for spec in specs:
            if not spec.has_region:
                column = [sample[specs.index(spec)] for sample in samples]
                assert reader.column(spec.name).tolist() == column
    assert verify(tmp_path / "a.beton", workers=1).ok


def write_one(path: Path, spec: fmt.FieldSpec, value: Any) -> Path:
    with BetonWriter(path, 1, [spec]) as writer:
        writer.add("s", [value])
    return path


def test_values_that_do_not_fit(tmp_path: Path) -> None:
    array = fmt.array_field("a", "<f4", (2, 3))
    wrong: list[tuple[fmt.FieldSpec, Any, str]] = [
        (array, np.zeros((3, 2), np.float32), r"shape \(3, 2\) does not fit field a \(ndarray <f4 2x3\)"),
        (array, np.zeros((2, 3), np.float64), "type <f8"),
        (array, 1.0, "a float does not fit"),
        (fmt.FieldSpec("j", fmt.JSON_FIELD), {1, 2}, "takes JSON values"),
        (fmt.FieldSpec("i", fmt.INT_FIELD), 2**63, "a int does not fit"),
        (fmt.FieldSpec("b", fmt.BYTES_FIELD), "text", "a str does not fit"),
    ]
    for spec, value, message in wrong:
        with pytest.raises(BetonError, match=message):
            write_one(tmp_path / "a.beton", spec, value)


def test_arrays_that_cannot_be_stored() -> None:
    for dtype, shape in [
        ("<f4", ()),
        ("<f4", (0,)),
        ("<f4", (2, 0)),
        ("<f4", (1,) * 33),
        ("O", (2,)),
        ([("a", "<f4")], (2,)),
    ]:
        with pytest.raises(BetonError, match="cannot be stored"):
            fmt.array_field("a", dtype, shape)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "description",
    [b"", b"[[", b'[["", "|O"]]', b'[["", "<f4"], ["", "<f4"]]', b'["<f4"]', b'[["", 7]]', b'[["", "<f3"]]'],
)
def test_hostile_array_descriptions(tmp_path: Path, description: bytes) -> None:
    path = write_one(tmp_path / "a.beton", fmt.array_field("a", "<f4", (2,)), np.ones(2, np.float32))
    data = bytearray(path.read_bytes())
    at = 24 + 17
    data[at + 256 : at + 264] = len(description).to_bytes(8, "little")
    data[at + 264 : at + 264 + 40] = description.ljust(40, b"\0")
    spec = fmt.unpack_fields(bytes(data[24:]), 1)[0]
    assert spec.dtype == ""
    with pytest.raises(BetonError, match="cannot be read"):
        _ = spec.array_bytes


def test_damage_in_further_fields_is_found(tmp_path: Path) -> None:
    specs = [*fmt.IMAGE_AND_LABEL, fmt.FieldSpec("note", fmt.JSON_FIELD)]
    with BetonWriter(tmp_path / "a.beton", 2, specs) as writer:
        for row in range(2):
            writer.add(f"s{row}", [EncodedImage(bytes(12), fmt.MODE_RAW, 2, 2), row, {"who": f"me {row}"}])
    assert verify(tmp_path / "a.beton").ok
    data = (tmp_path / "a.beton").read_bytes()
    (tmp_path / "a.beton").write_bytes(data.replace(b"me 1", b"xx 1"))
    bad = verify(tmp_path / "a.beton").bad
    assert [error.sample_id for error in bad] == ["s1"] and "further fields" in bad[0].reason
    (tmp_path / "a.beton").write_bytes(data.replace(b'{"who": "me 1', b"broken JSON  "))
    with BetonReader(tmp_path / "a.beton") as reader, pytest.raises(BetonError, match="row 1, field 'note'"):
        reader.value(1, "note")
    with BetonReader(tmp_path / "a.beton") as reader:
        with pytest.raises(BetonError, match="has no field 'x', only: image, label, note"):
            reader.value(0, "x")
        with pytest.raises(BetonError, match="holds no numbers"):
            reader.column("note")
