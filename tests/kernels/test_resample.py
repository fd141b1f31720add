"""The native loading kernels against Pillow's crop and resize."""

from collections.abc import Iterator
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fasttrain.kernels import loading
from fasttrain.kernels.loading import (
    DONE,
    FAILED,
    JPEG,
    NOT_HANDLED,
    OTHER,
    RAW,
    BatchPool,
    Geometry,
    PixelFormat,
    Sources,
)

pytestmark = pytest.mark.skipif(not loading.loading_available(), reason="the native kernels were not built")

FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


@pytest.fixture
def pool() -> Iterator[BatchPool]:
    opened = BatchPool(1)
    yield opened
    opened.close()


def picture(width: int, height: int, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    waves = np.stack([np.sin(x / (3 + channel) + y / (7 - channel)) for channel in range(3)], -1)
    return np.clip(127 + 90 * waves + generator.normal(0, 25, (height, width, 3)), 0, 255).astype(np.uint8)


def jpeg(pixels: np.ndarray, **options: Any) -> bytes:
    stream = BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", **{"quality": 92, **options})
    return stream.getvalue()


def one(stored: int, data: Any, width: int, height: int, length: int | None = None) -> Sources:
    size = len(memoryview(data).cast("B")) if length is None else length
    zero = np.zeros(1, np.int64)
    sizes = np.array([[width, height]])
    return Sources(np.array([stored], np.uint8), [data], zero, zero, np.array([size]), [None], sizes)


def view(
    box: tuple[int, int, int, int], resized: tuple[int, int], window: tuple[int, int] = (0, 0), **options: Any
) -> Geometry:
    def flag(name: str) -> np.ndarray:
        return np.array([options.get(name, False)])

    filter_ = options.get("filter", "bilinear")
    return Geometry(np.array([box]), np.array([resized]), np.array([window]), flag("hflip"), flag("vflip"), filter_)


def fill(
    pool: BatchPool, sources: Sources, geometry: Geometry, size: int, fast: bool = False, **format_: Any
) -> tuple[int, np.ndarray, str | None]:
    pixels = PixelFormat(**format_)
    dtype = {"bfloat16": "uint16"}.get(pixels.dtype, pixels.dtype)
    out = np.zeros((1, size, size, 3), dtype)
    filling = pool.submit(sources, geometry, out, pixels, fast)
    assert filling.wait(30)
    outcomes, reasons = filling.outcomes()
    return int(outcomes[0]), out[0], reasons.get(0)


def render(pool: BatchPool, pixels: np.ndarray, geometry: Geometry, size: int, **format_: Any) -> np.ndarray:
    """`geometry` of raw pixels."""
    data = np.ascontiguousarray(pixels)
    sources = one(RAW, data.reshape(-1), pixels.shape[1], pixels.shape[0])
    outcome, result, _ = fill(pool, sources, geometry, size, **format_)
    assert outcome == DONE
    return result


def expected(pixels: np.ndarray, geometry: Geometry, size: int) -> np.ndarray:
    left, top, width, height = geometry.boxes[0].tolist()
    image = Image.fromarray(pixels[top : top + height, left : left + width])
    x, y = geometry.windows[0].tolist()
    resized = np.asarray(image.resize(tuple(geometry.resized[0].tolist()), FILTERS[geometry.filter]))
    result = resized[y : y + size, x : x + size]
    result = result[:, ::-1] if geometry.hflip[0] else result
    return result[::-1] if geometry.vflip[0] else result


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    error = np.mean((one.astype(np.float64) - other.astype(np.float64)) ** 2)
    return 99.0 if error == 0 else float(10 * np.log10(255**2 / error))


SHAPES = [  # source, box, resized, window, size
    ((1, 1), (0, 0, 1, 1), (1, 1), (0, 0), 1),
    ((1, 1), (0, 0, 1, 1), (9, 9), (0, 0), 9),
    ((7, 5), (2, 1, 1, 3), (6, 6), (0, 0), 6),
    ((64, 48), (0, 0, 64, 48), (64, 48), (3, 5), 40),
    ((64, 48), (5, 3, 41, 37), (32, 32), (0, 0), 32),
    ((97, 301), (11, 7, 80, 290), (33, 120), (0, 43), 33),
    ((300, 200), (0, 0, 300, 200), (43, 29), (7, 0), 29),
    ((500, 333), (499, 0, 1, 333), (17, 17), (0, 0), 17),
    ((640, 480), (13, 11, 600, 450), (3, 3), (0, 0), 3),
    ((1000, 3), (0, 0, 1000, 3), (50, 50), (0, 0), 50),
    ((31, 29), (3, 2, 20, 25), (224, 224), (0, 0), 224),
]


@pytest.mark.parametrize("filter_", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("source", "box", "resized", "window", "size"), SHAPES)
def test_a_view_is_pillows_crop_and_resize(
    pool: BatchPool, simd: str, filter_: str, source: Any, box: Any, resized: Any, window: Any, size: int
) -> None:
    pixels = picture(*source)
    if filter_ == "bicubic":  # Pillow clips between its passes too, horizontal first; here is nothing to be clipped
        pixels = pixels // 2 + 64
    for hflip, vflip in ((False, False), (True, False), (True, True)):
        geometry = view(box, resized, window, filter=filter_, hflip=hflip, vflip=vflip)
        ours, theirs = render(pool, pixels, geometry, size), expected(pixels, geometry, size)
        # Pillow rounds between its passes; bicubic weights of either sign make a little more of that.
        assert np.abs(ours.astype(int) - theirs).max() <= (1 if filter_ == "bilinear" else 2)
        assert psnr(ours, theirs) >= 50


def test_random_views(pool: BatchPool, simd: str) -> None:
    generator = np.random.default_rng(5)
    for turn in range(60):
        width, height, size = (int(n) for n in generator.integers(1, [150, 150, 50]))
        box_w, box_h = int(generator.integers(1, width + 1)), int(generator.integers(1, height + 1))
        left, top = int(generator.integers(0, width - box_w + 1)), int(generator.integers(0, height - box_h + 1))
        resized = tuple(int(n) for n in generator.integers(size, size + 30, 2))
        window = tuple(int(generator.integers(0, side - size + 1)) for side in resized)
        filter_ = ("bilinear", "bicubic")[turn % 2]
        geometry = view((left, top, box_w, box_h), resized, window, filter=filter_, hflip=turn % 3 == 0)  # type: ignore[arg-type]
        pixels = picture(width, height, turn) // 2 + 64
        ours, theirs = render(pool, pixels, geometry, size), expected(pixels, geometry, size)
        assert np.abs(ours.astype(int) - theirs).max() <= 2


def test_overshoot_is_clipped(pool: BatchPool, simd: str) -> None:
    """Not quite where Pillow clips it, which does so after its horizontal pass as well."""
    pixels = picture(120, 90)
    for size in (50, 200):
        geometry = view((0, 0, 120, 90), (size, size), filter="bicubic")
        ours, theirs = render(pool, pixels, geometry, size), expected(pixels, geometry, size)
        assert psnr(ours, theirs) >= 45


def test_nothing_outside_of_the_box_is_looked_at(pool: BatchPool, simd: str) -> None:
    pixels = picture(90, 70)
    changed = np.zeros_like(pixels)
    changed[9:50, 21:80] = pixels[9:50, 21:80]
    geometry = view((21, 9, 59, 41), (30, 30), filter="bicubic")
    np.testing.assert_array_equal(render(pool, pixels, geometry, 30), render(pool, changed, geometry, 30))


SCALE, SHIFT = (1 / 58.4, 1 / 57.1, 1 / 57.4), (-2.12, -2.04, -1.8)


@pytest.mark.parametrize("size", [1, 5, 32])
def test_pixels_are_normalised_and_stored_in_every_format(pool: BatchPool, simd: str, size: int) -> None:
    pixels = picture(64, 48)
    geometry = view((5, 3, 41, 37), (32, 32), hflip=True)
    plain = render(pool, pixels, geometry, size, dtype="float32")
    assert np.abs(plain - expected(pixels, geometry, size)).max() <= 1.01
    normal = render(pool, pixels, geometry, size, dtype="float32", scale=SCALE, shift=SHIFT)
    np.testing.assert_allclose(normal, plain * np.float32(SCALE) + np.float32(SHIFT), atol=1e-5)
    half = render(pool, pixels, geometry, size, dtype="float16", scale=SCALE, shift=SHIFT)
    np.testing.assert_array_equal(half, normal.astype(np.float16))
    brain = render(pool, pixels, geometry, size, dtype="bfloat16", scale=SCALE, shift=SHIFT)
    as_float = (brain.astype(np.uint32) << 16).view(np.float32)
    np.testing.assert_allclose(as_float, normal, rtol=2**-8)
    np.testing.assert_array_equal(render(pool, pixels, geometry, size), np.floor(plain + 0.5))


def test_halves_round_to_nearest_even_down_to_denormals(pool: BatchPool, simd: str) -> None:
    pixels = np.repeat(np.arange(256, dtype=np.uint8), 3).reshape(16, 16, 3)
    geometry = view((0, 0, 16, 16), (16, 16))
    for scale, shift in (((1e-7, 3e-6, 1e-3), (0.0, 0.0, -1e-4)), ((1.0, 10.0, 300.0), (0.125, -3.3, 0.0))):
        half = render(pool, pixels, geometry, 16, dtype="float16", scale=scale, shift=shift)
        full = render(pool, pixels, geometry, 16, dtype="float32", scale=scale, shift=shift)
        with np.errstate(over="ignore"):
            np.testing.assert_array_equal(half, full.astype(np.float16))


def test_neighbours_are_left_alone(pool: BatchPool, simd: str) -> None:
    """Stores are four channels wide; what they spill must not reach another sample, nor the end of the memory."""
    pixels = picture(20, 20).reshape(-1)
    zeros = np.zeros(3, np.int64)
    stored = np.array([OTHER, RAW, OTHER], np.uint8)
    whole = np.tile([0, 0, 20, 20], (3, 1))
    sources = Sources(stored, [pixels], zeros, zeros, np.full(3, 1200), [None] * 3, np.full((3, 2), 20))
    none = np.zeros(3, bool)
    geometry = Geometry(whole, np.full((3, 2), 7), np.zeros((3, 2), np.int64), none, none, "bilinear")
    for dtype in ("uint8", "float32", "float16", "bfloat16"):
        item = {"bfloat16": "uint16"}.get(dtype, dtype)
        memory = np.full((5, 7, 7, 3), 77, item)
        filling = pool.submit(sources, geometry, memory[1:4], PixelFormat(dtype))  # type: ignore[arg-type]
        assert filling.wait(10)
        assert filling.outcomes()[0].tolist() == [NOT_HANDLED, DONE, NOT_HANDLED]
        assert (memory[[0, 1, 3, 4]] == 77).all() and not (memory[2] == 77).all()


# --- JPEG -------------------------------------------------------------------------------------------------------------

KINDS: dict[str, dict[str, Any]] = {
    "444": {"subsampling": "4:4:4"},
    "422": {"subsampling": "4:2:2"},
    "420": {"subsampling": "4:2:0"},
    "progressive": {"progressive": True},
    "restarts": {"restart_marker_blocks": 3},
    "rgb": {"keep_rgb": True},
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_box_of_a_jpeg_is_decoded_as_the_whole(pool: BatchPool, kind: str) -> None:
    """Bit for bit: the same pixels whether they are decoded as a box or cut out of the whole image."""
    generator = np.random.default_rng(1)
    for turn in range(25):
        width, height = (int(n) for n in generator.integers(3, 200, 2))
        stream = jpeg(picture(width, height, turn), **KINDS[kind])
        pixels = np.asarray(Image.open(BytesIO(stream)).convert("RGB"))
        size = int(generator.integers(1, min(width, height) + 1))
        left, top = int(generator.integers(0, width - size + 1)), int(generator.integers(0, height - size + 1))
        geometry = view((left, top, size, size), (size, size))
        outcome, ours, reason = fill(pool, one(JPEG, stream, width, height), geometry, size)
        assert outcome == DONE, reason
        np.testing.assert_array_equal(ours, pixels[top : top + size, left : left + size])


def test_grey_jpegs_are_shown_in_colour(pool: BatchPool) -> None:
    stream = jpeg(picture(60, 40)[..., 0])
    pixels = np.asarray(Image.open(BytesIO(stream)).convert("RGB"))
    outcome, ours, _ = fill(pool, one(JPEG, stream, 60, 40), view((3, 5, 31, 31), (31, 31)), 31)
    assert outcome == DONE
    np.testing.assert_array_equal(ours, pixels[5:36, 3:34])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reduction", [2, 3, 4, 9, 17])
def test_fast_decoding_is_near_enough(pool: BatchPool, kind: str, reduction: int) -> None:
    y, x = np.mgrid[0:400, 0:500]
    smooth = np.stack([127 + 100 * np.sin(x / (40 + c) + y / (60 - c)) for c in range(3)], -1).astype(np.uint8)
    stream = jpeg(smooth, **KINDS[kind])
    pixels = np.asarray(Image.open(BytesIO(stream)).convert("RGB"))
    size = 360 // reduction
    geometry = view((37, 21, 363, 361), (size, size))
    outcome, ours, reason = fill(pool, one(JPEG, stream, 500, 400), geometry, size, fast=True)
    assert outcome == DONE, reason
    assert psnr(ours, expected(pixels, geometry, size)) > 38


def cmyk() -> bytes:
    stream = BytesIO()
    Image.fromarray(picture(30, 30)).convert("CMYK").save(stream, "JPEG")
    return stream.getvalue()


@pytest.mark.parametrize(
    ("data", "outcome", "reason"),
    [
        (b"", NOT_HANDLED, ""),
        (b"no image at all", NOT_HANDLED, ""),
        (cmyk(), NOT_HANDLED, ""),
        (jpeg(picture(31, 30)), NOT_HANDLED, ""),  # of another size than was said
        (jpeg(picture(30, 30))[:-300], NOT_HANDLED, ""),  # no end: whether it is whole is for others to say
        (jpeg(picture(30, 30))[:-300] + b"\xff\xd9", FAILED, "entropy code is damaged"),
        (jpeg(picture(30, 30))[:200] + b"\xff\xd9", FAILED, ""),
    ],
)
def test_what_is_no_sound_jpeg(pool: BatchPool, data: bytes, outcome: int, reason: str) -> None:
    found, _, why = fill(pool, one(JPEG, data or b"\0", 30, 30, len(data)), view((0, 0, 30, 30), (8, 8)), 8)
    assert found == outcome
    assert reason in (why or "")


IMPOSSIBLE: list[tuple[Any, ...]] = [
    ((-1, 0, 5, 5), (8, 8), (0, 0)),
    ((0, 0, 21, 5), (8, 8), (0, 0)),
    ((20, 20, 1, 1), (8, 8), (0, 0)),
    ((0, 0, 0, 5), (8, 8), (0, 0)),
    ((0, 0, 2**40, 5), (8, 8), (0, 0)),
    ((0, 0, 5, 5), (7, 8), (0, 0)),
    ((0, 0, 5, 5), (8, 8), (1, 0)),
    ((0, 0, 5, 5), (8, 8), (0, -1)),
    ((0, 0, 5, 5), (2**31, 8), (0, 0)),
]


@pytest.mark.parametrize(("box", "resized", "window"), IMPOSSIBLE)
def test_impossible_views_are_errors(pool: BatchPool, box: Any, resized: Any, window: Any) -> None:
    pixels = picture(20, 20).reshape(-1)
    outcome, out, reason = fill(pool, one(RAW, pixels, 20, 20), view(box, resized, window), 8)
    assert outcome == FAILED and reason and not out.any()


def test_bytes_outside_of_the_buffer_are_not_read(pool: BatchPool) -> None:
    pixels = picture(20, 20).reshape(-1)
    geometry = view((0, 0, 20, 20), (8, 8))
    for changed in ({"offsets": np.array([1])}, {"lengths": np.array([-1])}, {"buffer": np.array([1])}):
        sources = one(RAW, pixels, 20, 20)
        outcome, _, _ = fill(pool, Sources(**{**sources.__dict__, **changed}), geometry, 8)
        assert outcome == NOT_HANDLED
    outcome, _, reason = fill(pool, one(RAW, pixels, 20, 20, 1199), geometry, 8)
    assert outcome == FAILED and reason and "pixels" in reason


def test_a_level_that_cannot_run_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot run neon"):
        loading.force_simd("neon")
