"""Random access into JPEGs: the index and what is decoded with it, against libjpeg's own decoder and Pillow."""

from collections.abc import Iterator
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fasttrain.kernels import loading
from fasttrain.kernels.indexed import IndexedReader, Units, index_jpeg, libjpeg_planes
from fasttrain.kernels.jpeg import check_jpeg
from fasttrain.kernels.loading import PixelFormat

from .indexed_cases import FACTORS, encode, geometry, indexed, picture, units_of

pytestmark = pytest.mark.skipif(not loading.loading_available(), reason="the native kernels were not built")

SIZES = [(1, 1), (8, 8), (9, 17), (33, 15), (129, 40), (300, 70)]


def assert_is_part(part: list[np.ndarray], whole: list[np.ndarray], units: Units) -> None:
    """`part`, of some MCUs, is that of `whole` where that has anything: libjpeg drops what fills up the last MCUs."""
    left, top, right, bottom = units
    for ours, theirs in zip(part, whole, strict=True):
        high, wide = ours.shape[0] // (bottom - top), ours.shape[1] // (right - left)
        expected = theirs[top * high : bottom * high, left * wide : right * wide]
        assert expected.size
        np.testing.assert_array_equal(ours[: expected.shape[0], : expected.shape[1]], expected)


@pytest.mark.parametrize("sampling", FACTORS)
@pytest.mark.parametrize("size", SIZES)
def test_the_index_has_the_length_that_the_geometry_says(sampling: str, size: tuple[int, int]) -> None:
    stream = encode(picture(*size), sampling)
    across, down = units_of(stream)
    step = 16 // FACTORS[sampling][0]
    index = indexed(stream)
    assert index.dtype == np.uint64 and index.shape == (down * -(-across // step),)
    positions = index & np.uint64(2**28 - 1)
    assert positions[0] == 0 and (np.diff(positions.astype(np.int64)) > 0).all()
    assert not (index[0] >> np.uint64(28))  # no mean precedes the first block


@pytest.mark.parametrize("sampling", FACTORS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("options", [{"quality": 5}, {"quality": 60}, {"quality": 100}, {"optimize": True}])
def test_the_whole_image_is_libjpegs(
    reader: IndexedReader, sampling: str, size: tuple[int, int], options: dict[str, Any]
) -> None:
    stream = encode(picture(*size), sampling, **options)
    units = (0, 0, *units_of(stream))
    index = indexed(stream)
    assert_is_part(reader.coefficients(stream, index, units), libjpeg_planes(stream, False), units)
    assert_is_part(reader.planes(stream, index, units), libjpeg_planes(stream, True), units)


@pytest.mark.parametrize("sampling", FACTORS)
def test_every_unit_can_be_entered(reader: IndexedReader, sampling: str) -> None:
    stream = encode(picture(451, 100), sampling, quality=97)
    index, coefficients = indexed(stream), libjpeg_planes(stream, False)
    across, down = units_of(stream)
    for left in range(across):
        for top in range(0, down, 3):
            units = (left, top, min(left + 1 + left % 5, across), min(top + 1 + left % 4, down))
            assert_is_part(reader.coefficients(stream, index, units), coefficients, units)


@pytest.mark.parametrize("sampling", FACTORS)
def test_samples_are_libjpegs(reader: IndexedReader, simd: str, sampling: str) -> None:
    """Bit for bit, also those of blocks that overflow, at every place of a group of blocks."""
    generator = np.random.default_rng(3)
    for quality in (3, 50, 100):
        noise = generator.choice(np.array([0, 255], np.uint8), (90, 211, 3))
        flat = np.full((90, 211, 3), 255, np.uint8)
        for pixels in (picture(211, 90), noise, flat):
            stream = encode(pixels, sampling, quality=quality)
            index, planes = indexed(stream), libjpeg_planes(stream, True)
            across, down = units_of(stream)
            for units in ((0, 0, across, down), (1, 1, across, down), (0, down - 1, 1, down), (2, 0, across - 1, 1)):
                assert_is_part(reader.planes(stream, index, units), planes, units)


@pytest.mark.parametrize("eighths", [1, 2, 4])
@pytest.mark.parametrize("sampling", FACTORS)
def test_samples_of_reduced_sizes_are_libjpegs(reader: IndexedReader, simd: str, sampling: str, eighths: int) -> None:
    for quality in (20, 75, 95):
        stream = encode(picture(211, 90), sampling, quality=quality)
        index, planes = indexed(stream), libjpeg_planes(stream, True, eighths)
        across, down = units_of(stream)
        for units in ((0, 0, across, down), (1, 1, across, down), (2, 0, across - 1, 1)):
            assert_is_part(reader.planes(stream, index, units, eighths), planes, units)


@pytest.mark.parametrize("eighths", [1, 2, 4, 8])
def test_hostile_quantisation_is_bounded(reader: IndexedReader, simd: str, eighths: int) -> None:
    stream = bytearray(encode(picture(100, 60), "4:2:0"))
    at = stream.index(b"\xff\xdb") + 5
    stream[at : at + 64] = b"\xff" * 64
    assert all(
        plane.size
        for plane in reader.planes(bytes(stream), indexed(encode(picture(100, 60), "4:2:0")), (0, 0, 7, 4), eighths)
    )


# --- what cannot be indexed, and what does not fit --------------------------------------------------------------------


@pytest.mark.parametrize("options", [{"progressive": True}, {"restart_marker_blocks": 3}])
def test_kinds_without_an_index(reader: IndexedReader, options: dict[str, Any]) -> None:
    stream = encode(picture(40, 30), **options)
    assert index_jpeg(stream) is None
    with pytest.raises(ValueError, match="no random-access index"):
        reader.planes(stream, np.zeros(4, np.uint64), (0, 0, 1, 1))


@pytest.mark.parametrize(
    "segment",
    [b"\xff\x01", b"\xff\xd3", bytes(3), b"\xff\xdc\0\4\0\x1e", b"\xff\xdd\0\4\0\5\xff\xdd\0\4\0\0"],
    ids=["TEM", "stray RST", "zeros", "DNL", "DRI taken back"],
)
def test_headers_that_libjpeg_alone_reads_get_no_index(segment: bytes) -> None:
    stream = encode(picture(40, 30))
    at = stream.index(b"\xff\xda")
    assert index_jpeg(stream) is not None
    assert check_jpeg(stream[:at] + segment + stream[at:]).width == 40
    assert index_jpeg(stream[:at] + segment + stream[at:]) is None


def test_a_size_that_the_bytes_cannot_fill(reader: IndexedReader) -> None:
    stream = bytearray(encode(picture(40, 30)))
    at = stream.index(b"\xff\xc0")
    stream[at + 5 : at + 9] = (4000).to_bytes(2, "big") * 2
    with pytest.raises(ValueError, match="truncated"):
        reader.planes(bytes(stream), np.zeros(500 * 32, np.uint64), (0, 0, 500, 500))


def test_cmyk_has_no_index() -> None:
    stream = BytesIO()
    Image.fromarray(picture(30, 30)).convert("CMYK").save(stream, "JPEG")
    assert index_jpeg(stream.getvalue()) is None


def test_damaged_streams_are_not_indexed() -> None:
    stream = encode(picture(100, 100))
    with pytest.raises(ValueError, match="truncated"):
        index_jpeg(stream[: len(stream) // 2])


def test_an_index_of_another_image(reader: IndexedReader) -> None:
    stream, other = encode(picture(300, 200)), encode(picture(300, 200, 1), quality=50)
    with pytest.raises(ValueError, match=r"does not fit|damaged"):
        reader.planes(stream, indexed(other), (0, 0, 38, 25))
    with pytest.raises(ValueError, match="another length"):
        reader.planes(stream, indexed(stream)[1:], (0, 0, 38, 25))


def hostile_indices(index: np.ndarray, generator: np.random.Generator) -> Iterator[np.ndarray]:
    yield np.zeros_like(index)
    yield np.full_like(index, 2**64 - 1)
    yield index[::-1].copy()
    for _ in range(60):
        changed = index.copy()
        place = int(generator.integers(0, len(index)))
        changed[place] ^= np.uint64(1) << np.uint64(generator.integers(0, 64))
        yield changed
    for _ in range(20):
        yield generator.integers(0, 2**64, len(index), np.uint64)


@pytest.mark.parametrize("sampling", ["4:4:4", "4:2:0", "grey"])
def test_hostile_indices_end_in_errors_or_pixels(reader: IndexedReader, sampling: str) -> None:
    stream = encode(picture(280, 90), sampling)
    index, wanted = indexed(stream), geometry([(13, 11, 250, 70)], [(20, 20)])
    refused = 0
    for hostile in hostile_indices(index, np.random.default_rng(5)):
        try:
            reader.views(stream, hostile, wanted, 20, PixelFormat("uint8"))
        except ValueError:
            refused += 1
    assert refused > 10
    reader.planes(stream, index, (0, 0, *units_of(stream)))  # and nothing of it is left behind


@pytest.mark.parametrize("sampling", ["4:2:0", "grey"])
def test_every_byte_of_an_index_may_be_any_other(reader: IndexedReader, sampling: str) -> None:
    """It ends in an error, or in the pixels of all rows that the entry says nothing of."""
    stream = encode(picture(280, 40), sampling)
    index = indexed(stream)
    across, down = units_of(stream)
    entries_across = len(index) // down
    whole = reader.planes(stream, index, (0, 0, across, down))[0]
    high = whole.shape[0] // down
    generator = np.random.default_rng(2)
    refused = 0
    for place in range(index.nbytes):
        changed = index.copy()
        changed.view(np.uint8)[place] ^= np.uint8(generator.integers(1, 256))
        row = place // 8 // entries_across
        for top in range(down):
            try:
                found = reader.planes(stream, changed, (0, top, across, top + 1))[0]
            except ValueError as error:
                assert "does not fit" in str(error) or "damaged" in str(error)
                assert row - 1 <= top <= row  # its own row, or the one that ends where it begins
                refused += 1
                continue
            if top != row:
                np.testing.assert_array_equal(found, whole[top * high : (top + 1) * high])
    assert refused > index.nbytes // 4


@pytest.mark.parametrize("sampling", ["4:4:4", "4:2:0"])
def test_mutated_streams_end_in_errors_or_pixels(reader: IndexedReader, sampling: str) -> None:
    generator = np.random.default_rng(11)
    stream = encode(picture(200, 90), sampling, optimize=True)
    index, wanted = indexed(stream), geometry([(13, 11, 180, 70)], [(20, 20)])
    scan = stream.index(b"\xff\xda")
    for turn in range(300):
        changed = bytearray(stream)
        low, high = (0, scan + 14) if turn % 2 else (scan, len(stream))
        for place in generator.integers(low, high, int(generator.integers(1, 6))).tolist():
            changed[place] = int(generator.integers(0, 256))
        if turn % 5 == 0:
            del changed[int(generator.integers(2, len(changed))) :]
        try:
            view = reader.views(bytes(changed), index, wanted, 20, PixelFormat("uint8"), fast=turn % 3 == 0)
            assert view.shape == (1, 20, 20, 3)
        except ValueError as error:
            assert str(error)
    assert_is_part(reader.planes(stream, index, (0, 0, *units_of(stream))), libjpeg_planes(stream, True),
                   (0, 0, *units_of(stream)))  # fmt: skip
