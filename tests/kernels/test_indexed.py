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
from fasttrain.kernels.loading import Geometry, PixelFormat

pytestmark = pytest.mark.skipif(not loading.loading_available(), reason="the native kernels were not built")

LEVELS = loading.usable_simd() if loading.loading_available() else []
FACTORS = {"4:4:4": (1, 1), "4:2:2": (2, 1), "4:2:0": (2, 2), "4:4:0": (1, 2), "4:1:1": (4, 1), "grey": (1, 1)}
SIZES = [(1, 1), (8, 8), (9, 17), (33, 15), (129, 40), (300, 70)]


@pytest.fixture(params=LEVELS)
def simd(request: pytest.FixtureRequest) -> Iterator[str]:
    before = loading.current_simd()
    loading.force_simd(request.param)
    yield request.param
    loading.force_simd(before)


@pytest.fixture
def reader() -> IndexedReader:
    return IndexedReader()


def picture(width: int, height: int, seed: int = 0) -> np.ndarray:
    """Like a photo: smooth colours with edges, and texture in places."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    waves = np.stack([np.sin(x / (30 + 9 * channel) + y / (41 - 7 * channel)) for channel in range(3)], -1)
    edges = 35.0 * ((x // 37 + y // 29) % 2)[..., None]
    texture = generator.normal(0, 12, (height, width, 1)) * (x > width // 2)[..., None]
    return np.clip(110 + 80 * waves + edges + texture, 0, 255).astype(np.uint8)


def relabelled(stream: bytes, across: int, down: int, factors: int) -> bytes:
    """A stream said to be of another sub-sampling of as many blocks an MCU, which Pillow does not write.

    Its sides are multiplied by `across` and `down` halves, so that it has as many MCUs: other pixels, but as sound.
    """
    width, height = Image.open(BytesIO(stream)).size
    at = stream.index(b"\xff\xc0")
    changed = bytearray(stream)
    changed[at + 5 : at + 7] = (-(-height * down // 2)).to_bytes(2, "big")
    changed[at + 7 : at + 9] = (-(-width * across // 2)).to_bytes(2, "big")
    changed[at + 11] = factors
    return bytes(changed)


def encode(pixels: np.ndarray, sampling: str = "4:4:4", **options: Any) -> bytes:
    image = Image.fromarray(pixels)
    if sampling == "grey":
        image = image.convert("L")
    else:
        options["subsampling"] = {"4:4:0": "4:2:2", "4:1:1": "4:2:0"}.get(sampling, sampling)
    stream = BytesIO()
    image.save(stream, "JPEG", **{"quality": 90, **options})
    if sampling == "4:4:0":
        return relabelled(stream.getvalue(), 1, 4, 0x12)
    return relabelled(stream.getvalue(), 4, 1, 0x41) if sampling == "4:1:1" else stream.getvalue()


def units_of(stream: bytes) -> tuple[int, int]:
    """MCUs across and down."""
    image = Image.open(BytesIO(stream))
    (across, down) = image.layer[0][1:3] if len(image.layer) == 3 else (1, 1)  # type: ignore[attr-defined]
    return -(-image.width // (8 * across)), -(-image.height // (8 * down))


def indexed(stream: bytes) -> np.ndarray:
    index = index_jpeg(stream)
    assert index is not None
    return index


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


# --- views ------------------------------------------------------------------------------------------------------------


def geometry(boxes: Any, resized: Any, windows: Any = None, flips: Any = None, filter_: Any = "bilinear") -> Geometry:
    count = len(boxes)
    flags = np.zeros((count, 2), bool) if flips is None else np.array(flips)
    starts = np.zeros((count, 2), np.int64) if windows is None else np.array(windows)
    return Geometry(np.array(boxes), np.array(resized), starts, flags[:, 0], flags[:, 1], filter_)


def pillow_view(stream: bytes, wanted: Geometry, size: int, number: int = 0) -> np.ndarray:
    left, top, width, height = wanted.boxes[number].tolist()
    image = Image.open(BytesIO(stream)).convert("RGB").crop((left, top, left + width, top + height))
    filter_ = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}[wanted.filter]
    x, y = wanted.windows[number].tolist()
    pixels = np.asarray(image.resize(tuple(wanted.resized[number].tolist()), filter_))[y : y + size, x : x + size]
    pixels = pixels[:, ::-1] if wanted.hflip[number] else pixels
    return pixels[::-1] if wanted.vflip[number] else pixels


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    error = np.mean((one.astype(np.float64) - other.astype(np.float64)) ** 2)
    return 99.0 if error == 0 else float(10 * np.log10(255**2 / error))


def random_geometry(generator: np.random.Generator, width: int, height: int, size: int) -> Geometry:
    box_w, box_h = int(generator.integers(40, width + 1)), int(generator.integers(40, height + 1))
    box = (int(generator.integers(0, width - box_w + 1)), int(generator.integers(0, height - box_h + 1)), box_w, box_h)
    resized = [int(n) for n in generator.integers(size, size + 30, 2)]
    window = [int(generator.integers(0, side - size + 1)) for side in resized]
    return geometry([box], [resized], [window], [generator.integers(0, 2, 2) == 1])


@pytest.mark.parametrize("sampling", FACTORS)
def test_views_are_near_pillows(reader: IndexedReader, simd: str, sampling: str) -> None:
    generator, found = np.random.default_rng(7), []
    for turn in range(12):
        width, height = (int(n) for n in generator.integers(150, 400, 2))
        stream = encode(picture(width, height, turn), sampling)
        width, height = Image.open(BytesIO(stream)).size
        size = (64, 96)[turn % 2]
        wanted = random_geometry(generator, width, height, size)
        view = reader.views(stream, indexed(stream), wanted, size, PixelFormat("uint8"))[0]
        found.append(psnr(view, pillow_view(stream, wanted, size)))
    is_relabelled = sampling in ("4:4:0", "4:1:1")  # then it has nothing of a photo
    assert np.mean(found) >= (25 if is_relabelled else 50) and min(found) >= (20 if is_relabelled else 45), found


def test_a_view_of_the_same_size_is_the_image(reader: IndexedReader, simd: str) -> None:
    stream = encode(picture(150, 120), "4:4:4")
    for filter_ in ("bilinear", "bicubic"):
        wanted = geometry([(17, 9, 101, 101)], [(101, 101)], filter_=filter_)
        view = reader.views(stream, indexed(stream), wanted, 101, PixelFormat("uint8"))[0]
        assert np.abs(view.astype(int) - pillow_view(stream, wanted, 101)).max() <= 1


def test_streams_coded_as_rgb(reader: IndexedReader) -> None:
    stream = encode(picture(150, 120), keep_rgb=True)
    wanted = geometry([(17, 9, 101, 101)], [(50, 50)], flips=[(True, True)])
    view = reader.views(stream, indexed(stream), wanted, 50, PixelFormat("uint8"))[0]
    assert np.abs(view.astype(int) - pillow_view(stream, wanted, 50)).max() <= 1


@pytest.mark.parametrize("sampling", ["4:4:4", "4:2:0", "grey"])
def test_several_views_are_each_what_it_is_alone(reader: IndexedReader, simd: str, sampling: str) -> None:
    stream = encode(picture(390, 310), sampling)
    boxes = [(0, 0, 390, 310), (31, 200, 90, 100), (300, 5, 77, 290), (10, 10, 5, 3)]
    flips = [(False, False), (True, False), (False, True), (True, True)]
    together = geometry(boxes, [(40, 40), (33, 50), (60, 33), (33, 33)], [(3, 7), (0, 17), (20, 0), (0, 0)], flips)
    views = reader.views(stream, indexed(stream), together, 33, PixelFormat("uint8"))
    for i in range(4):
        part = slice(i, i + 1)
        alone = Geometry(
            together.boxes[part], together.resized[part], together.windows[part],
            together.hflip[part], together.vflip[part], "bilinear",
        )  # fmt: skip
        np.testing.assert_array_equal(
            views[i], reader.views(stream, indexed(stream), alone, 33, PixelFormat("uint8"))[0]
        )


@pytest.mark.parametrize("sampling", ["4:4:4", "4:2:2", "4:2:0", "grey"])
@pytest.mark.parametrize("share", [2, 3, 4, 9])
def test_fast_views_of_large_boxes_are_near_pillows(
    reader: IndexedReader, simd: str, sampling: str, share: int
) -> None:
    stream = encode(picture(500, 380), sampling)
    size = 340 // share
    wanted = geometry([(17, 21, 460, 345)], [(460 // share, size + 1)], [(5, 1)], [(True, False)])
    view = reader.views(stream, indexed(stream), wanted, size, PixelFormat("uint8"), fast=True)[0]
    exact = reader.views(stream, indexed(stream), wanted, size, PixelFormat("uint8"))[0]
    assert (view != exact).any()
    assert psnr(view, pillow_view(stream, wanted, size)) >= 35


def test_fast_views_of_small_boxes_are_the_exact_ones(reader: IndexedReader) -> None:
    stream = encode(picture(300, 200), "4:2:0")
    wanted = geometry([(17, 21, 198, 127)], [(100, 64)])
    exact = reader.views(stream, indexed(stream), wanted, 64, PixelFormat("uint8"))
    np.testing.assert_array_equal(reader.views(stream, indexed(stream), wanted, 64, PixelFormat("uint8"), True), exact)


def test_fast_views_share_the_size_that_the_finest_needs(reader: IndexedReader) -> None:
    stream = encode(picture(500, 380), "4:2:0")
    index, boxes = indexed(stream), [(0, 0, 500, 380), (30, 40, 70, 60)]
    together = reader.views(stream, index, geometry(boxes, [(50, 50)] * 2), 50, PixelFormat("uint8"), fast=True)
    exact = reader.views(stream, index, geometry(boxes, [(50, 50)] * 2), 50, PixelFormat("uint8"))
    np.testing.assert_array_equal(together, exact)
    alone = reader.views(stream, index, geometry(boxes[:1], [(50, 50)]), 50, PixelFormat("uint8"), fast=True)
    assert (alone[0] != exact[0]).any()


def test_sizes_that_do_not_exist(reader: IndexedReader) -> None:
    stream = encode(picture(64, 48))
    with pytest.raises(ValueError, match="eighths"):
        reader.planes(stream, indexed(stream), (0, 0, 1, 1), 3)


SCALE, SHIFT = (1 / 58.4, 1 / 57.1, 1 / 57.4), (-2.12, -2.04, -1.8)


@pytest.mark.parametrize("size", [1, 5, 33])
@pytest.mark.parametrize("sampling", ["4:2:0", "grey"])
def test_pixels_are_normalised_and_stored_in_every_format(
    reader: IndexedReader, simd: str, sampling: str, size: int
) -> None:
    stream = encode(picture(64, 48), sampling)
    index, wanted = indexed(stream), geometry([(5, 3, 41, 37)], [(33, 34)], flips=[(True, False)])

    def view(*format_: Any) -> np.ndarray:
        return reader.views(stream, index, wanted, size, PixelFormat(*format_))

    plain = view("float32")
    assert plain.min() >= 0 and plain.max() <= 255
    normal = view("float32", SCALE, SHIFT)
    np.testing.assert_allclose(normal, plain * np.float32(SCALE) + np.float32(SHIFT), atol=1e-5)
    np.testing.assert_array_equal(view("float16", SCALE, SHIFT), normal.astype(np.float16))
    brain = (view("bfloat16", SCALE, SHIFT).astype(np.uint32) << 16).view(np.float32)
    np.testing.assert_allclose(brain, normal, rtol=2**-8)
    np.testing.assert_array_equal(view("uint8"), np.floor(plain + 0.5))


def test_views_that_the_image_does_not_have(reader: IndexedReader) -> None:
    stream = encode(picture(64, 48))
    for box in ((-1, 0, 5, 5), (0, 0, 65, 5), (60, 0, 5, 5), (0, 0, 0, 5), (0, 0, 2**40, 5)):
        with pytest.raises(ValueError, match="does not have"):
            reader.views(stream, indexed(stream), geometry([box], [(8, 8)]), 8, PixelFormat("uint8"))
    for units in ((0, 0, 9, 1), (0, 0, 8, 7), (-1, 0, 8, 6), (3, 0, 3, 6)):
        with pytest.raises(ValueError, match="does not have"):
            reader.planes(stream, indexed(stream), units)


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
