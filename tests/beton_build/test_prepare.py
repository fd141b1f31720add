"""In which form an image is stored, and what is noted about it."""

from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from fasttrain.beton_build import prepare as preparing
from fasttrain.beton_build.format import MODE_JPG, MODE_RAW
from fasttrain.beton_build.images import decode_rgb, decode_stream
from fasttrain.beton_build.prepare import Form, prepare
from fasttrain.beton_build.records import Original
from fasttrain.kernels import jpeg
from fasttrain.kernels.jpeg_markers import read_header

Pixels = Callable[..., np.ndarray]
Encoded = Callable[..., bytes]
KEEP = Form()


@pytest.fixture(params=["native", "Pillow"], autouse=True)
def _kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything holds with the native kernels and without."""
    if request.param == "Pillow":
        monkeypatch.setattr(jpeg, "_native", None)
    elif not jpeg.native_available():
        pytest.skip("the native kernels were not built")


def with_orientation(pixels: np.ndarray, value: int, **options: Any) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = value
    stream = BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", exif=exif, **options)
    return stream.getvalue()


@pytest.mark.parametrize(
    "options",
    [
        {"quality": 80},
        {"progressive": True},
        {"subsampling": "4:4:4"},
        {"subsampling": "4:2:2"},
        {"subsampling": "4:2:0", "optimize": True},
        {"restart_marker_blocks": 2},
        {"keep_rgb": True},
    ],
)
def test_usual_jpegs_are_kept(pixels: Pixels, encoded: Encoded, options: dict[str, Any]) -> None:
    data = encoded(pixels(50, 40), "JPEG", **options)
    prepared = prepare(data, KEEP)
    assert prepared.image.data == data and prepared.image.mode == MODE_JPG
    assert (prepared.image.width, prepared.image.height, prepared.changes) == (50, 40, ("kept",))
    assert prepared.original == Original(50, 40, "JPEG RGB")


def test_grey_jpegs_stay_grey(pixels: Pixels, encoded: Encoded) -> None:
    data = encoded(pixels(50, 40)[..., 0], "JPEG")
    assert prepare(data, KEEP).image.data == data
    again = prepare(data, Form("jpg", quality=95))
    assert len(read_header(again.image.data).frame.factors) == 1  # type: ignore[union-attr]
    assert np.abs(decode_stream(again.image.data).astype(int) - decode_rgb(data)).mean() < 1
    assert prepare(encoded(Image.fromarray(pixels(9, 9)).convert("L"), "PNG"), KEEP).original.kind == "PNG L"


def test_rotated_jpegs_are_turned(pixels: Pixels) -> None:
    prepared = prepare(with_orientation(pixels(20, 12), 6), KEEP)
    assert (prepared.image.width, prepared.image.height) == (12, 20)
    assert prepared.changes == ("re-encoded", "rotated")
    assert prepared.original == Original(20, 12, "JPEG RGB")
    assert prepare(with_orientation(pixels(20, 12), 1), KEEP).changes == ("kept",)


def test_cmyk_becomes_rgb(pixels: Pixels, encoded: Encoded) -> None:
    data = encoded(Image.fromarray(pixels(32, 24)).convert("CMYK"), "JPEG", quality=95)
    prepared = prepare(data, Form("jpg", quality=95))
    assert prepared.changes == ("re-encoded", "from CMYK")
    assert np.abs(decode_stream(prepared.image.data).astype(int) - pixels(32, 24)).mean() < 6


def test_what_follows_the_end_is_dropped(pixels: Pixels, encoded: Encoded) -> None:
    data = encoded(pixels(50, 40), "JPEG")
    prepared = prepare(data + b"garbage \xff\xd9 of a broken copy", KEEP)
    assert prepared.image.data == data
    assert prepared.changes == ("kept", "bytes after the end dropped")


def test_the_first_of_several_pictures_is_kept(pixels: Pixels, encoded: Encoded) -> None:
    second = Image.fromarray(pixels(50, 40, 1))
    data = encoded(pixels(50, 40), "MPO", save_all=True, append_images=[second])
    prepared = prepare(data, KEEP)
    assert "bytes after the end dropped" in prepared.changes
    assert np.abs(decode_stream(prepared.image.data).astype(int) - pixels(50, 40)).mean() < 6
    frames = encoded(pixels(50, 40), "TIFF", save_all=True, append_images=[Image.fromarray(pixels(50, 40, 2))])
    prepared = prepare(frames, Form("raw"))
    assert prepared.changes == ("as pixels", "first picture of several")
    assert prepared.image.data == pixels(50, 40).tobytes()


def test_colour_profiles_are_noted(pixels: Pixels, encoded: Encoded) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert "colour profile ignored" in prepare(encoded(pixels(50, 40), "JPEG", icc_profile=profile), KEEP).changes
    assert "colour profile ignored" in prepare(encoded(pixels(50, 40), "PNG", icc_profile=profile), KEEP).changes


@pytest.mark.parametrize("fmt", ["BMP", "TIFF", "GIF", "PNG", "WEBP", "PPM"])
def test_every_format_is_read(pixels: Pixels, encoded: Encoded, fmt: str) -> None:
    source = Image.fromarray(pixels(30, 20)).quantize(16) if fmt == "GIF" else pixels(30, 20)
    options = {"lossless": True} if fmt == "WEBP" else {}
    prepared = prepare(encoded(source, fmt, **options), Form("raw"))
    shown = np.frombuffer(prepared.image.data, np.uint8).reshape(20, 30, 3)
    expected = np.asarray(source.convert("RGB")) if isinstance(source, Image.Image) else source
    assert np.array_equal(shown, expected)
    assert prepared.original.kind.split()[0] == fmt


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 3}])
def test_truncated_jpegs_are_errors(encoded: Encoded, options: dict[str, Any]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8)
    data = encoded(noise, "JPEG", **options)
    assert prepare(data, KEEP).image.width == 300
    for share in (0.1, 0.5, 0.9, 0.99):
        for mode in ("keep", "jpg", "raw"):
            with pytest.raises(ValueError, match=r"truncated|damaged|not a JPEG"):
                prepare(data[: int(share * len(data))], Form(mode))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "data", [b"", b"hello", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"PK\x03\x04 a zip", bytes(100)]
)
def test_what_is_no_image(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        prepare(data, KEEP)


def test_modes(pixels: Pixels, encoded: Encoded) -> None:
    data = encoded(pixels(50, 40), "JPEG", quality=60)
    again, raw = prepare(data, Form("jpg", quality=95)), prepare(data, Form("raw"))
    assert again.image.data != data and again.changes == ("re-encoded",)
    header = read_header(again.image.data)
    assert header is not None and header.frame.factors == ((2, 2), (1, 1), (1, 1))
    assert np.abs(decode_stream(again.image.data).astype(int) - decode_rgb(data)).mean() < 2
    assert raw.changes == ("as pixels",)
    assert raw.image.mode == MODE_RAW and raw.image.data == decode_rgb(data).tobytes()
    assert len(prepare(data, Form("jpg", quality=20)).image.data) < len(again.image.data)


def test_smart_stores_small_images_as_pixels(pixels: Pixels, encoded: Encoded) -> None:
    form = Form("smart", smart_threshold=50 * 40 * 3)
    small, large = encoded(pixels(50, 40), "JPEG"), encoded(pixels(51, 40), "JPEG")
    assert prepare(small, form).image.mode == MODE_RAW
    assert prepare(large, form).image.data == large
    shrunk = prepare(large, Form("smart", smart_threshold=50 * 40 * 3, max_resolution=20))
    assert shrunk.image.mode == MODE_RAW and shrunk.image.width == 20


def test_resolutions_only_shrink(pixels: Pixels, encoded: Encoded) -> None:
    data = encoded(pixels(400, 100), "JPEG", quality=95)
    for form in (Form(max_resolution=400), Form(min_resolution=100), Form(max_resolution=999, min_resolution=999)):
        assert prepare(data, form).image.data == data
    small = prepare(data, Form("raw", max_resolution=100))
    assert (small.image.width, small.image.height) == (100, 25)
    shown = np.frombuffer(small.image.data, np.uint8).reshape(25, 100, 3)
    expected = np.asarray(Image.fromarray(pixels(400, 100)).resize((100, 25), Image.Resampling.LANCZOS))
    assert np.abs(shown.astype(int) - expected).mean() < 1.5
    assert small.original == Original(400, 100, "JPEG RGB")
    by_short_side = prepare(data, Form(min_resolution=50)).image
    assert (by_short_side.width, by_short_side.height) == (200, 50)
    both = prepare(data, Form(max_resolution=100, min_resolution=50)).image
    assert (both.width, both.height) == (100, 25)
    thin = prepare(encoded(pixels(300, 1), "PNG"), Form(max_resolution=10))
    assert (thin.image.width, thin.image.height) == (10, 1)


def test_max_resolution_of_a_rotated_image(pixels: Pixels) -> None:
    prepared = prepare(with_orientation(pixels(400, 100), 6, quality=95), Form(max_resolution=40))
    assert (prepared.image.width, prepared.image.height) == (10, 40)
    assert prepared.changes == ("re-encoded", "rotated", "resized")


def test_sides_beyond_the_format_are_refused() -> None:
    stream = BytesIO()
    Image.new("L", (70_000, 1)).save(stream, "PNG")
    with pytest.raises(ValueError, match=r"70000x1 pixels.*--max-resolution"):
        prepare(stream.getvalue(), Form("raw"))
    assert prepare(stream.getvalue(), Form("raw", max_resolution=1000)).image.width == 1000


def test_images_of_another_beton(pixels: Pixels, encoded: Encoded) -> None:
    raw = prepare(encoded(pixels(50, 40), "PNG"), Form("raw")).image
    stream = prepare(encoded(pixels(50, 40), "JPEG"), KEEP).image
    assert prepare(raw, KEEP).image == raw and prepare(stream, KEEP).image == stream
    assert prepare(raw, Form("jpg")).image.mode == MODE_JPG
    assert prepare(stream, Form("raw")).image.data == decode_stream(stream.data).tobytes()
    assert prepare(raw, Form(max_resolution=25)).image.width == 25
    turned = preparing.EncodedImage(with_orientation(pixels(50, 40), 6), MODE_JPG, 50, 40)
    assert prepare(turned, Form("raw")).image.width == 50  # what a `.beton` stores is shown as it is
    with pytest.raises(ValueError, match="the stream is 50x40, the file says 40x50"):
        prepare(preparing.EncodedImage(stream.data, MODE_JPG, 40, 50), KEEP)
