"""Re-packed JPEGs: other codes for the same coefficients."""

import os
import struct
from io import BytesIO
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fasttrain.kernels import jpeg, jpeg_markers
from fasttrain.kernels.indexed import index_jpeg, libjpeg_planes
from fasttrain.kernels.jpeg import check_jpeg, repack_jpeg
from fasttrain.tools.mutants import streams
from fasttrain.tools.mutants.segments import find_segments

if not jpeg.native_available():
    if os.environ.get("FASTTRAIN_REQUIRE_NATIVE"):
        raise ImportError("the native kernels were not built, but they must be here")
    pytest.skip("the native kernels were not built", allow_module_level=True)

SCAN, END = b"\xff\xda", b"\xff\xd9"


def picture(width: int, height: int) -> Image.Image:
    return streams.picture(width, height, width)


def encode(image: Image.Image, **options: Any) -> bytes:
    stream = BytesIO()
    image.save(stream, "JPEG", **options)
    return stream.getvalue()


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(data)))


def segments(data: bytes) -> list[bytes]:
    """Application and comment segments."""
    found = [one for one in find_segments(data) if 0xE0 <= one.marker <= 0xEF or one.marker == 0xFE]
    return [data[one.start : one.stop] for one in found]


def huffman_tables(data: bytes) -> set[bytes]:
    return {data[one.body : one.stop] for one in find_segments(data) if one.marker == 0xC4}


def repacked(data: bytes) -> bytes:
    """`data` re-packed, and proof that it is the same image."""
    stream = repack_jpeg(data)
    assert stream is not None
    for ours, theirs in zip(libjpeg_planes(stream, False), libjpeg_planes(data, False), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(pixels(stream), pixels(data))
    assert Image.open(BytesIO(stream)).mode == Image.open(BytesIO(data)).mode
    assert segments(stream) == segments(data)
    assert check_jpeg(stream).length == len(stream)
    assert index_jpeg(stream) is not None and repack_jpeg(stream) is None
    return stream


def in_three_scans(width: int = 70, height: int = 40) -> bytes:
    """A baseline JPEG with a scan for each component, which Pillow does not write: three grey ones put together."""
    planes = [encode(plane, quality=80) for plane in picture(width, height).split()]
    header = planes[0][2 : jpeg_markers.read_header(planes[0]).scan_at]  # type: ignore[union-attr]
    frame = header.index(b"\xff\xc0")
    stop = frame + 2 + int.from_bytes(header[frame + 2 : frame + 4], "big")
    components = b"".join(bytes([number, 0x11, 0]) for number in (1, 2, 3))
    stream = b"\xff\xd8" + header[:frame] + b"\xff\xc0" + struct.pack(">HBHHB", 17, 8, height, width, 3) + components
    stream += header[stop:]
    for number, plane in enumerate(planes, 1):
        at = plane.index(SCAN)
        stream += SCAN + struct.pack(">HBBBBBB", 8, 1, number, 0, 0, 63, 0) + plane[at + 10 : -2]
    return stream + END


@pytest.mark.parametrize("size", [(1, 1), (7, 9), (16, 16), (99, 101)])
@pytest.mark.parametrize("sampling", ["4:4:4", "4:2:2", "4:2:0", "grey"])
@pytest.mark.parametrize("kind", [{"progressive": True}, {"restart_marker_blocks": 1}, {"restart_marker_rows": 1}])
def test_what_pillow_writes(kind: dict[str, Any], sampling: str, size: tuple[int, int]) -> None:
    image = picture(*size).convert("L") if sampling == "grey" else picture(*size)
    options = kind if sampling == "grey" else {**kind, "subsampling": sampling}
    if index_jpeg(encode(image, **options)) is not None:
        pytest.skip("too few MCUs for a restart marker")  # then there is no interval in the header either
    frame = jpeg_markers.read_header(repacked(encode(image, **options))).frame  # type: ignore[union-attr]
    assert frame.process == jpeg_markers.BASELINE and (frame.width, frame.height) == size


@pytest.mark.parametrize(
    "name", [name for name in streams.NAMES if {"progressive", "restarts", "arithmetic"} & {*name.split()}]
)
def test_every_kind_of_stream(name: str) -> None:
    repacked(streams.stream(name))


def test_several_scans() -> None:
    data = in_three_scans()
    assert index_jpeg(data) is None
    repacked(data)


@pytest.mark.parametrize("quality", [1, 30, 100])
def test_coefficients_of_every_size(quality: int) -> None:
    noise = np.random.default_rng(0).choice(np.array([0, 255], np.uint8), (90, 110, 3))
    repacked(encode(Image.fromarray(noise), quality=quality, progressive=True, subsampling="4:4:4"))


def test_coarse_quantisation_of_sixteen_bits() -> None:
    tables = [[300] * 64, [1000] * 64]
    stream = repacked(encode(picture(50, 40), qtables=tables, progressive=True))
    assert jpeg_markers.read_header(stream).frame.process == jpeg_markers.EXTENDED  # type: ignore[union-attr]


def test_codes_are_as_good_as_before() -> None:
    image = picture(160, 120)
    plain = huffman_tables(encode(image))
    assert huffman_tables(repacked(encode(image, restart_marker_rows=1))) == plain
    optimised = encode(image, restart_marker_rows=1, optimize=True)
    assert len(repacked(optimised)) < len(optimised)
    assert len(repacked(encode(image, progressive=True))) <= len(encode(image, optimize=True))


def test_metadata_stays_as_it_is() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    options: dict[str, Any] = {
        "exif": exif,
        "icc_profile": bytes(range(256)) * 600,
        "comment": b"words",
        "dpi": (300, 300),
    }
    data = encode(picture(60, 40), progressive=True, **options)
    image = Image.open(BytesIO(repacked(data)))
    assert image.info["dpi"] == (300, 300) and image.info["comment"] == b"words"
    assert image.info["icc_profile"] == options["icc_profile"] and image.getexif()[0x0112] == 6
    late = data.index(b"\xff\xc4", data.index(SCAN))  # a comment between scans
    repacked(data[:late] + b"\xff\xfe\x00\x06late" + data[late:])


def without(data: bytes, marker: int) -> bytes:
    for one in reversed(find_segments(data)):
        if one.marker == marker:
            data = data[: one.start] + data[one.stop :]
    return data


def adobe(transform: int) -> bytes:
    return b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00" + bytes([transform])


def test_colours_are_told_as_before() -> None:
    """By JFIF, by Adobe's segment, by the components' names or by nothing at all."""
    data = encode(picture(40, 30), progressive=True)
    bare = without(data, 0xE0)
    assert segments(repacked(bare)) == []
    repacked(encode(picture(40, 30), progressive=True, keep_rgb=True))
    repacked(without(encode(picture(40, 30), progressive=True, keep_rgb=True), 0xEE))
    for transform in (0, 1):
        repacked(bare[:2] + adobe(transform) + bare[2:])


def test_colours_told_too_late_stay_unheard() -> None:
    bare = without(encode(picture(40, 30), progressive=True), 0xE0)
    late = bare.index(b"\xff\xc4", bare.index(SCAN))
    data = bare[:late] + adobe(0) + bare[late:]
    stream = repack_jpeg(data)
    assert stream is not None and segments(stream) == []
    np.testing.assert_array_equal(pixels(stream), pixels(data))


def test_what_is_behind_the_end_is_no_part() -> None:
    data = encode(picture(40, 30), progressive=True)
    assert repacked(data) == repack_jpeg(data + b"trailing \xff\xd9")


@pytest.mark.parametrize("name", ["4:4:4", "4:2:0", "4:4:0", "4:1:1", "grey", "optimised tables", "RGB", "CMYK", "1x1"])
def test_what_is_left_as_it_is(name: str) -> None:
    assert repack_jpeg(streams.stream(name)) is None


def scans(data: bytes) -> list[int]:
    """Where each scan begins, its tables included, and where the last one ends."""
    found = [one.start for one in find_segments(data) if one.marker == 0xDA]
    tables = [one.start for one in find_segments(data) if one.marker == 0xC4]
    firsts = [found[0]]
    for before, at in pairwise(found):
        firsts.append(min([table for table in tables if before < table < at], default=at))
    return [*firsts, len(data) - 2]


def test_missing_scans() -> None:
    """Without a component's first scan an image is damaged; without refinement it is sound, but shown smoothed."""
    three = in_three_scans()
    for first, stop in pairwise(scans(three)):
        with pytest.raises(ValueError, match="truncated"):
            repack_jpeg(three[:first] + three[stop:])
        with pytest.raises(ValueError, match="truncated"):
            check_jpeg(three[:first] + three[stop:])
    data = encode(picture(60, 44), progressive=True)
    for stop in scans(data)[1:-1]:
        assert check_jpeg(data[:stop] + END).width == 60
        assert repack_jpeg(data[:stop] + END) is None


@pytest.mark.parametrize("kind", [{"progressive": True}, {"restart_marker_blocks": 2}])
def test_damage_is_found_as_by_the_check(kind: dict[str, Any]) -> None:
    data = encode(picture(64, 48), **kind)
    for length in range(0, len(data) - 2, 7):
        with pytest.raises(ValueError, match=r"\w"):
            repack_jpeg(data[:length])
    generator = np.random.default_rng(3)
    made = 0
    for _ in range(500):
        changed = bytearray(data)
        for at in generator.integers(2, len(data), generator.integers(1, 4)).tolist():
            changed[at] = int(generator.integers(0, 256))
        try:
            check_jpeg(bytes(changed))
        except ValueError:
            with pytest.raises(ValueError, match=r"\w"):
                repack_jpeg(bytes(changed))
            continue
        stream = repack_jpeg(bytes(changed))
        if stream is not None:
            made += 1
            for ours, theirs in zip(libjpeg_planes(stream, False), libjpeg_planes(bytes(changed), False), strict=True):
                np.testing.assert_array_equal(ours, theirs)
    assert made > 5


def test_sound_but_beyond_baseline() -> None:
    """A mean that no sequential code of eight bits can say, though a progressive one can."""
    data = bytearray(encode(Image.new("L", (24, 16), "white"), progressive=True, quality=100))
    start = scans(bytes(data))[0]
    assert bytes(data[start : start + 10]) == b"\xff\xda\x00\x08\x01\x01\x00\x00\x00\x01"
    data[start + 9] = 0x05  # the first scan's bits are shifted by five
    assert check_jpeg(bytes(data)).width == 24
    assert repack_jpeg(bytes(data)) is None


@pytest.mark.parametrize("data", [b"", b"\xff\xd8", b"\xff\xd8\xff\xd9", b"not a jpeg at all", bytes(1000)])
def test_what_is_no_jpeg(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        repack_jpeg(data)
