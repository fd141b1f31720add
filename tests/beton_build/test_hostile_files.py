"""Damaged, cut, foreign and malicious files: one clear sentence each, never a crash or a wrong answer."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fasttrain.base.errors import BetonError, ImageError
from fasttrain.beton_build import format as fmt
from fasttrain.beton_build.describe import describe
from fasttrain.beton_build.reader import BetonReader
from fasttrain.beton_build.trailer import FOOTER
from fasttrain.beton_build.values import EncodedImage
from fasttrain.beton_build.verify import verify
from fasttrain.beton_build.writer import BetonWriter

N = 5


@pytest.fixture
def good(tmp_path: Path, pixels: Callable[..., np.ndarray], encoded: Callable[..., bytes]) -> Path:
    path = tmp_path / "good.beton"
    with BetonWriter(path, N, class_names=["a", "b"]) as writer:
        for row in range(N):
            array = pixels(40 + row, 30, row)
            if row % 2:
                image = EncodedImage(array.tobytes(), fmt.MODE_RAW, 40 + row, 30)
            else:
                image = EncodedImage(encoded(array), fmt.MODE_JPG, 40 + row, 30)
            writer.add(f"id{row}", [image, row % 2])
    return path


def table_at(path: Path) -> int:
    with path.open("rb") as file:
        return int(np.frombuffer(file.read(24), fmt.HEADER)[0]["alloc_table_ptr"])


def patch(path: Path, offset: int, data: bytes) -> None:
    with path.open("rb+") as file:
        file.seek(offset)
        file.write(data)


def use_everything(path: Path) -> None:
    """Touch all that a reader offers."""
    with BetonReader(path) as reader:
        describe(reader)
        list(reader.ids)
        reader.check_structure()
        for row in range(reader.num_samples):
            reader.image(row)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "shorter than the header"),
        (b"short", "shorter than the header"),
        (b"\x89PNG\r\n\x1a\n" + b"x" * 5000, "is not a .beton"),
        (b"\0" * 5000, "is not a .beton"),
        (b"PK\x03\x04" * 2000, "is not a .beton"),
    ],
)
def test_other_files(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "x.beton"
    path.write_bytes(content)
    with pytest.raises(BetonError, match=message):
        BetonReader(path)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(BetonError, match="no such file"):
        BetonReader(tmp_path / "none.beton")
    with pytest.raises(BetonError, match="is a folder"):
        BetonReader(tmp_path)


@pytest.mark.parametrize(
    ("offset", "data", "message"),
    [
        (0, b"\x03\x00", "version 3; this program reads version 2"),
        (16, bytes(8), "never completed"),
        (16, b"\xff" * 8, "cut short"),
        (16, (30).to_bytes(8, "little"), "does not fit"),
        (8, b"\xff" * 8, "do not fit before"),
        (8, (N - 1).to_bytes(8, "little"), "damaged"),
        (4, (12345).to_bytes(4, "little"), "its header is damaged"),
        (24, b"\xff", "custom type"),
        (24, b"\x01", "damaged"),
        (24 + 2 * 1041 + 16, b"\x07", "damaged"),
    ],
)
def test_damaged_heads(good: Path, offset: int, data: bytes, message: str) -> None:
    patch(good, offset, data)
    with pytest.raises(BetonError, match=message):
        BetonReader(good)


@pytest.mark.parametrize("field", range(5))
def test_damaged_footers(good: Path, field: int) -> None:
    name = FOOTER.names[[0, 1, 3, 4, 5][field]]  # type: ignore[index]
    patch(good, table_at(good) - FOOTER.itemsize + FOOTER.fields[name][1], b"\xa5\xa5\xa5")  # type: ignore[index]
    with pytest.raises(BetonError, match="trailer"):
        BetonReader(good)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 1, exclude_max=True))
def test_cut_short_anywhere(good: Path, share: float) -> None:
    data = good.read_bytes()
    cut = good.with_name("cut.beton")
    cut.write_bytes(data[: int(share * len(data))])
    with pytest.raises(BetonError):
        BetonReader(cut)


def test_cut_by_whole_table_records(good: Path) -> None:
    good.write_bytes(good.read_bytes()[:-24])
    with pytest.raises(BetonError, match="cut short"):
        BetonReader(good)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_damaged_byte_goes_unnoticed(good: Path, data: st.DataObject) -> None:
    """One wrong byte in head, trailer or table is an error, or changes nothing that is read."""
    size, table = good.stat().st_size, table_at(good)
    start = table - fmt.MIN_PAGE_SIZE
    places = st.one_of(
        st.integers(0, 24 + 2 * 1041 + N * 24 - 1),
        st.integers(start, start + 899),
        st.integers(table - FOOTER.itemsize, size - 1),
    )
    offset, value = data.draw(places), data.draw(st.integers(1, 255))
    old = good.read_bytes()[offset]
    patch(good, offset, bytes([old ^ value]))
    try:
        with pytest.raises((BetonError, ImageError)):
            use_everything(good)
            if start <= offset < start + 900 or table - FOOTER.itemsize <= offset < table:
                raise BetonError("padding between sections and reserved bytes of the footer hold nothing")
    finally:
        patch(good, offset, bytes([old]))
    use_everything(good)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(row=st.integers(0, N - 1), pointer=st.integers(0, 2**64 - 1), size=st.integers(0, 2**64 - 1))
def test_foreign_files_with_wild_pointers(good: Path, row: int, pointer: int, size: int) -> None:
    """Without a trailer there are no checksums: every pointer and size must be checked."""
    foreign = as_foreign(good)
    use_everything(foreign)
    patch(foreign, table_at(foreign) + 24 * row + 16, size.to_bytes(8, "little"))
    refused = (BetonError, ImageError)
    with pytest.raises(refused):
        use_everything(foreign)
        raise BetonError("a size that happens to fit")
    patch(foreign, 24 + 2 * 1041 + 24 * row + 5, pointer.to_bytes(8, "little"))
    patch(foreign, table_at(foreign) + 24 * row + 8, pointer.to_bytes(8, "little"))
    with pytest.raises(refused):
        use_everything(foreign)
        raise BetonError("a pointer that happens to fit")


def as_foreign(good: Path) -> Path:
    """The same file as FFCV would write it: no trailer."""
    data = good.read_bytes()
    table = table_at(good)
    header = np.frombuffer(data[:24], fmt.HEADER).copy()
    header["alloc_table_ptr"] = table - fmt.MIN_PAGE_SIZE
    foreign = good.with_name("foreign.beton")
    foreign.write_bytes(header.tobytes() + data[24 : table - fmt.MIN_PAGE_SIZE] + data[table:])
    return foreign


def test_files_without_a_trailer(good: Path) -> None:
    with BetonReader(good) as ours, BetonReader(as_foreign(good)) as reader:
        assert list(reader.ids) == ["0", "1", "2", "3", "4"]
        assert reader.keys.tolist() == [0, 1, 2, 3, 4]
        assert reader.class_names is None and reader.checksums is None
        assert np.array_equal(reader.sizes, ours.sizes) and np.array_equal(reader.labels, ours.labels)
        description = describe(reader)
        assert (description["classes"], description["num_classes"], description["complete"]) == ([], 2, True)
        assert len(reader.fingerprint) == 32


def test_a_broken_image_names_sample_and_row(good: Path) -> None:
    with BetonReader(good) as reader:
        offset = int(reader.offsets[2])
    patch(good, offset, b"not a jpeg")
    with BetonReader(good) as reader, pytest.raises(ImageError) as caught:
        reader.image(2)
    assert caught.value.sample_id == "id2"
    assert caught.value.path == f"{good}[2]"


def test_a_stream_of_another_size_is_refused(
    tmp_path: Path, pixels: Callable[..., np.ndarray], encoded: Callable[..., bytes]
) -> None:
    with BetonWriter(tmp_path / "a.beton", 1) as writer:
        writer.add("liar", [EncodedImage(encoded(pixels(32, 16)), fmt.MODE_JPG, 16, 16), 0])
    with BetonReader(tmp_path / "a.beton") as reader, pytest.raises(ImageError, match=r"'liar'.*32x16.*16x16"):
        reader.image(0)


def test_files_without_images(tmp_path: Path) -> None:
    with BetonWriter(tmp_path / "a.beton", 1, [fmt.FieldSpec("x", fmt.FLOAT_FIELD)]) as writer:
        writer.add("a", [1.5])
    with BetonReader(tmp_path / "a.beton") as reader:
        reader.check_structure()
        assert reader.column("x").tolist() == [1.5]
        assert describe(reader)["jpeg"] == 0
        with pytest.raises(BetonError, match=r"no RGB image field, only: x \(float\)"):
            reader.image(0)


def test_a_cleared_footer_makes_no_file_of_ffcv(good: Path) -> None:
    """Else its images would come without their names, and with other views."""
    patch(good, table_at(good) - FOOTER.itemsize, bytes(FOOTER.itemsize))
    with pytest.raises(BetonError, match="footer of its trailer is lost"):
        BetonReader(good)


def test_a_further_image_with_a_wild_size_is_named(tmp_path: Path, pixels: Callable[..., np.ndarray]) -> None:
    path = tmp_path / "two.beton"
    fields = (*fmt.IMAGE_AND_LABEL, fmt.FieldSpec("second", fmt.IMAGE_FIELD))
    with BetonWriter(path, 2, fields) as writer:
        for row in range(2):
            image = EncodedImage(pixels(8, 8, row).tobytes(), fmt.MODE_RAW, 8, 8)
            writer.add(f"id{row}", [image, 0, image])
    foreign = as_foreign(path)
    patch(foreign, table_at(foreign) + 3 * 24 + 16, (1 << 40).to_bytes(8, "little"))
    report = verify(foreign, 1)
    assert [error.sample_id for error in report.bad] == ["1"]
    assert "field 'second'" in report.bad[0].reason
