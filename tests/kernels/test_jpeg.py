"""The checks and the re-encoding of JPEG streams: the native kernels, and Pillow in their place."""

import os
import struct
import subprocess
import sys
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fasttrain.kernels import jpeg, jpeg_markers
from fasttrain.kernels.indexed import index_jpeg
from fasttrain.kernels.jpeg import check_jpeg, check_jpeg_reference, checked_index, repack_jpeg, transcode_jpeg

if not jpeg.native_available() and os.environ.get("FASTTRAIN_REQUIRE_NATIVE"):
    raise ImportError("the native kernels were not built, but they must be here")

needs_native = pytest.mark.skipif(not jpeg.native_available(), reason="the native kernels were not built")
needs_memory_figures = pytest.mark.skipif(
    not Path("/proc/self/statm").exists(), reason="needs Linux's figures of a process's memory"
)
CHECKS = [pytest.param(check_jpeg, marks=needs_native, id="native"), pytest.param(check_jpeg_reference, id="reference")]

KINDS: list[dict[str, Any]] = [
    {},
    {"subsampling": "4:4:4"},
    {"subsampling": "4:2:2"},
    {"progressive": True},
    {"progressive": True, "subsampling": "4:4:4", "quality": 95},
    {"optimize": True},
    {"restart_marker_rows": 1},
    {"restart_marker_blocks": 3},
    {"keep_rgb": True},
]
SIZES = [(1, 1), (7, 9), (8, 8), (15, 17), (16, 16), (17, 33), (64, 48), (99, 101)]


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    """Smooth colours with some texture."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    noisy = np.asarray(coarse, np.int16) + rng.integers(-6, 7, (height, width, 3))
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def encode(image: Image.Image, **options: Any) -> bytes:
    stream = BytesIO()
    image.save(stream, "JPEG", **options)
    return stream.getvalue()


def decode(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(data)).convert("RGB"), np.float64)


def luma(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(data)).convert("L"), np.float64)


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB."""
    return float(10 * np.log10(255**2 / max(((one - other) ** 2).mean(), 1e-9)))


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", SIZES)
def test_sound_streams(check: Any, kind: dict[str, Any], size: tuple[int, int]) -> None:
    data = encode(picture(*size), **kind)
    facts = check(data)
    assert (facts.width, facts.height, facts.components, facts.length) == (*size, 3, len(data))
    assert facts.is_common
    assert not facts.has_metadata and not facts.has_profile
    assert check(data + b"trailing \xff\xd9 garbage").length == len(data)


@needs_native
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", SIZES)
def test_the_check_and_the_index_in_one_walk(kind: dict[str, Any], size: tuple[int, int]) -> None:
    data = encode(picture(*size), **kind)
    facts, index = checked_index(data)
    assert facts == check_jpeg(data)
    expected = index_jpeg(data)
    assert (index is None) == (expected is None)
    assert index is None or np.array_equal(index, np.asarray(expected))
    if index is None:
        assert jpeg_markers.index_obstacle(data) in ("progressive", "restart markers")
    with pytest.raises(ValueError, match="truncated"):
        checked_index(data[:-2])


@needs_native
def test_a_stream_that_the_reader_does_not_take_gets_no_index() -> None:
    """It knows fewer markers than libjpeg: here one of arithmetic codes, in a stream without any."""
    data = encode(picture(64, 48))
    marker = b"\xff\xcc\x00\x04\x00\x10"
    assert checked_index(data[:2] + marker + data[2:])[1] is None
    assert checked_index(data)[1] is not None


def test_what_stands_in_the_way_of_an_index() -> None:
    grey = picture(40, 30).convert("L")
    cases = {
        "progressive": encode(picture(40, 30), progressive=True),
        "restart markers": encode(picture(40, 30), restart_marker_rows=1),
        "CMYK": encode(picture(40, 30).convert("CMYK")),
        "damaged": b"no JPEG",
    }
    for obstacle, data in cases.items():
        assert jpeg_markers.index_obstacle(data) == obstacle
    assert jpeg_markers.index_obstacle(encode(picture(40, 30))) is None
    assert jpeg_markers.index_obstacle(encode(grey)) is None


def test_without_the_kernels_there_is_no_index(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jpeg, "_native", None)
    data = encode(picture(40, 30))
    assert jpeg.checked_index(data) == (check_jpeg_reference(data), None)


@pytest.mark.parametrize("check", CHECKS)
def test_other_kinds(check: Any) -> None:
    assert check(encode(picture(40, 30).convert("L"))).components == 1
    cmyk = check(encode(picture(40, 30).convert("CMYK")))
    assert cmyk.components == 4 and not cmyk.is_common
    exif = Image.Exif()
    exif[0x0112] = 6
    assert check(encode(picture(40, 30), exif=exif)).has_metadata
    assert check(encode(picture(40, 30), icc_profile=b"a profile" * 20_000)).has_profile
    view = memoryview(bytearray(encode(picture(40, 30))))
    assert check(view).width == 40


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("kind", [{}, {"progressive": True}, {"restart_marker_rows": 1}])
def test_truncation_is_found_wherever_it_is(check: Any, kind: dict[str, Any]) -> None:
    data = encode(picture(64, 48), **kind)
    for length in range(0, len(data) - 2, 7 if check is check_jpeg else 41):
        with pytest.raises(ValueError, match=r"\w"):
            check(data[:length])


@needs_native
def test_a_missing_end_marker_is_truncation() -> None:
    with pytest.raises(ValueError, match="truncated"):
        check_jpeg(encode(picture(64, 48))[:-2])


@needs_native
def test_damage_that_pillow_does_not_see() -> None:
    """A sector overwritten in the midst of the entropy code: libjpeg goes on with wrong pixels and a mere warning."""
    data = encode(picture(400, 300), quality=92)
    scan = jpeg_markers.read_header(data).scan_at  # type: ignore[union-attr]
    rng = np.random.default_rng(0)
    missed = missed_by_pillow = 0
    for _ in range(200):
        at = int(rng.integers(scan + 20, len(data) - 600))
        damaged = data[:at] + bytes(rng.integers(0, 255, 512, np.uint8)) + data[at + 512 :]
        try:
            check_jpeg_reference(damaged)
            missed_by_pillow += 1
        except ValueError:
            pass
        try:
            check_jpeg(damaged)
            missed += 1  # now and then, other bytes are other valid codes, of as many blocks
        except ValueError as error:
            assert "damaged" in str(error)
    assert missed <= 20 < 100 < missed_by_pillow, (missed, missed_by_pillow)


@needs_native
def test_zeros_between_the_last_code_and_the_end_are_padding() -> None:
    data = encode(picture(64, 48))
    assert check_jpeg(data[:-2] + bytes(9) + data[-2:]).length == len(data) + 9
    with pytest.raises(ValueError, match="damaged"):
        check_jpeg(data[:-2] + b"\0\0left over\0" + data[-2:])


@needs_native
@pytest.mark.parametrize("kind", [{}, {"progressive": True}, {"subsampling": "4:4:4", "restart_marker_rows": 1}])
def test_hostile_bytes_are_errors_and_nothing_else(kind: dict[str, Any]) -> None:
    data = encode(picture(64, 48), **kind)
    rng = np.random.default_rng(1)
    for _ in range(400):
        changed = bytearray(data)
        for at in rng.integers(2, len(data), rng.integers(1, 9)):
            changed[at] = rng.integers(0, 256)
        if rng.random() < 0.3:
            start, length = rng.integers(0, len(data)), rng.integers(1, 200)
            changed[start : start + length] = [b"", bytes(length), rng.bytes(2 * length)][rng.integers(3)]
        try:
            facts = check_jpeg(bytes(changed))
            sound = True
        except ValueError:
            sound = False
        try:
            stream = transcode_jpeg(bytes(changed), 80)
        except ValueError:
            assert not sound
            continue
        if sound and stream is not None:
            assert decode(stream).shape[:2] == (facts.height, facts.width)


def relabelled(data: bytes, luma_factors: int | None = None, size: tuple[int, int] | None = None) -> bytes:
    """The stream with other numbers in its frame header: the luma's sampling factors, (width, height)."""
    changed = bytearray(data)
    frame = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2"))
    if luma_factors is not None:
        changed[frame + 11] = luma_factors
    if size is not None:
        changed[frame + 5 : frame + 9] = struct.pack(">HH", size[1], size[0])
    return bytes(changed)


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize(
    ("coded_as", "factors", "size"), [("4:2:0", (4, 1), (64, 16)), ("4:2:2", (1, 2), (32, 32))], ids=["4:1:1", "4:4:0"]
)
def test_kinds_that_pillow_does_not_write(
    check: Any, coded_as: str, factors: tuple[int, int], size: tuple[int, int], progressive: bool
) -> None:
    """Blocks of one sampling taken for those of another, of as many blocks: scrambled pixels, but a sound stream."""
    source = encode(picture(*size), subsampling=coded_as, restart_marker_blocks=0 if progressive else 1)
    if progressive:  # its scans of single components go by their own sizes, so only a flat image fits both ways
        source = encode(Image.new("RGB", size, "grey"), subsampling=coded_as, progressive=True)
    data = relabelled(source, factors[0] << 4 | factors[1])
    facts = check(data)
    assert (facts.width, facts.height, facts.length, facts.is_common) == (*size, len(data), True)
    frame = jpeg_markers.read_header(data).frame  # type: ignore[union-attr]
    assert frame.factors == (factors, (1, 1), (1, 1))


@needs_native
def test_four_four_nought_is_transcoded_and_four_one_one_is_not() -> None:
    data = relabelled(encode(picture(32, 32), subsampling="4:2:2"), 0x12)
    stream = transcode_jpeg(data, 95)
    assert stream is not None and psnr(luma(stream), luma(data)) > 34
    assert transcode_jpeg(relabelled(encode(picture(64, 16), subsampling="4:2:0"), 0x41), 95) is None


@needs_native
@needs_memory_figures
@pytest.mark.parametrize("progressive", [False, True])
def test_a_size_that_the_bytes_cannot_fill_takes_no_memory(progressive: bool) -> None:
    """A few hundred bytes whose header asks for half a gigabyte of coefficients."""
    resource = pytest.importorskip("resource")
    data = relabelled(encode(picture(16, 16), progressive=progressive), size=(13_000, 13_000))
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + 200_000_000, before[1]))
    try:
        for job in (check_jpeg, checked_index, repack_jpeg, partial(transcode_jpeg, quality=90)):
            with pytest.raises(ValueError, match=r"truncated|damaged"):
                job(data)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


STARVED = """
import sys, resource
from pathlib import Path
from fasttrain.kernels.jpeg import check_jpeg, repack_jpeg, transcode_jpeg
data = Path(sys.argv[1]).read_bytes()
check_jpeg(data), transcode_jpeg(data, 100), repack_jpeg(data)  # each thread's tables are made once
raised = 0
for spare in range(0, 20_000_000, 250_000):
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + spare, resource.RLIM_INFINITY))
    try:
        check_jpeg(data), transcode_jpeg(data, 100), repack_jpeg(data)
    except (MemoryError, ValueError):
        raised += 1
print(raised)
"""


@needs_native
@needs_memory_figures
@pytest.mark.parametrize("kind", [{}, {"progressive": True}, {"restart_marker_rows": 1}])
def test_memory_that_runs_out_is_an_error_and_nothing_else(tmp_path: Path, kind: dict[str, Any]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (800, 800, 3), dtype=np.uint8)
    path = tmp_path / "noise.jpg"
    path.write_bytes(encode(Image.fromarray(noise), quality=90, **kind))
    done = subprocess.run([sys.executable, "-c", STARVED, path], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 0


@needs_native
def test_scans_without_end_are_refused() -> None:
    """Each takes a few bytes, and libjpeg a pass over all coefficients."""
    data = encode(Image.new("RGB", (64, 48), "grey"), progressive=True)  # without details to refine again
    last = data[data.rfind(b"\xff\xc4", 0, data.rfind(b"\xff\xda")) : -2]
    assert check_jpeg(data[:-2] + last * 50 + data[-2:]).length == len(data) + 50 * len(last)
    for job in (check_jpeg, repack_jpeg, partial(transcode_jpeg, quality=90)):
        with pytest.raises(ValueError, match="scans"):
            job(data[:-2] + last * 200 + data[-2:])


@pytest.mark.parametrize("data", [b"", b"\xff\xd8", b"\xff\xd8\xff\xd9", b"not a jpeg at all", bytes(1000)])
@pytest.mark.parametrize("check", CHECKS)
def test_what_is_no_jpeg(check: Any, data: bytes) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        check(data)


@needs_native
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", [kind for kind in KINDS if not {"keep_rgb"} & kind.keys()])
def test_transcoding_agrees_with_pillow(kind: dict[str, Any], size: tuple[int, int]) -> None:
    data = encode(picture(*size), **{"quality": 90, **kind})
    stream = transcode_jpeg(data, 90)
    assert stream is not None
    header = jpeg_markers.read_header(stream)
    assert header is not None and header.frame.factors == ((2, 2), (1, 1), (1, 1))
    assert header.frame.process == jpeg_markers.BASELINE
    theirs = encode(Image.open(BytesIO(data)), quality=90, subsampling="4:2:0")
    assert stream[:600].count(b"\xff\xdb") == 2  # the quantisation tables of the quality
    assert header.scan_at == jpeg_markers.read_header(theirs).scan_at  # type: ignore[union-attr]
    assert psnr(luma(stream), luma(theirs)) > 34
    # Chroma differs: Pillow enlarges it and shrinks it again. That is not better for the source.
    assert psnr(decode(stream), decode(data)) > psnr(decode(theirs), decode(data)) - 0.5


@needs_native
def test_transcoding_grey_and_what_it_leaves_to_others() -> None:
    grey = encode(picture(41, 30).convert("L"), quality=90)
    stream = transcode_jpeg(grey, 95)
    assert stream is not None and Image.open(BytesIO(stream)).mode == "L"
    assert psnr(decode(stream), decode(grey)) > 40
    assert transcode_jpeg(encode(picture(40, 30).convert("CMYK")), 90) is None
    assert transcode_jpeg(encode(picture(40, 30), keep_rgb=True), 90) is None


@needs_native
@pytest.mark.parametrize("kind", [{}, {"progressive": True}])
def test_nothing_is_made_that_the_check_refuses(kind: dict[str, Any]) -> None:
    """libjpeg takes a mean far outside of the range; a stream with it would fail when it is verified."""
    data = bytearray(encode(Image.new("L", (24, 16), "white"), quality=75, **kind))
    data[data.index(b"\xff\xdb") + 5] = 255  # the quantum of the means
    with pytest.raises(ValueError, match="far too bright"):
        transcode_jpeg(bytes(data), 90)


def test_headers() -> None:
    header = jpeg_markers.read_header(encode(picture(33, 21), progressive=True, subsampling="4:2:2"))
    assert header is not None
    assert header.frame == jpeg_markers.Frame(jpeg_markers.PROGRESSIVE, 8, 33, 21, ((2, 1), (1, 1), (1, 1)))
    broken = [
        b"",
        b"\xff\xd8",
        b"\xff\xd8\xff\xe0\x00",
        b"\xff\xd8" + b"\xff\xe0\x00\x00" * 9,
        b"\xff\xd8" + b"\xff" * 50,
    ]
    for data in broken:
        assert jpeg_markers.read_header(data) is None
    assert not jpeg_markers.Frame(0xC9, 8, 1, 1, ((1, 1),) * 3).is_common  # arithmetic coding
    assert not jpeg_markers.Frame(0xC1, 12, 1, 1, ((1, 1),) * 3).is_common
    assert not jpeg_markers.Frame(0xC0, 8, 1, 1, ((3, 1), (1, 1), (1, 1))).is_common
