"""Every colour mode, orientation and defect that an image file can come with."""

from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from fasttrain.beton_build import jpeg
from fasttrain.beton_build.format import MODE_JPG, MODE_RAW
from fasttrain.beton_build.images import decode_rgb, decode_stream, prepare, to_rgb

Pixels = Callable[..., np.ndarray]
Encoded = Callable[..., bytes]


def with_orientation(pixels: np.ndarray, value: int, fmt: str = "JPEG", **options: Any) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = value
    stream = BytesIO()
    Image.fromarray(pixels).save(stream, fmt, exif=exif, **options)
    return stream.getvalue()


@pytest.mark.parametrize("value", range(10))
@pytest.mark.parametrize("fmt", ["JPEG", "PNG", "WEBP"])
def test_orientation_is_applied(pixels: Pixels, value: int, fmt: str) -> None:
    data = with_orientation(pixels(20, 12), value, fmt)
    with Image.open(BytesIO(data)) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    assert np.array_equal(decode_rgb(data), expected)
    assert decode_rgb(data).shape == ((20, 12, 3) if 5 <= value <= 8 else (12, 20, 3))


def test_rotated_jpegs_are_not_kept(pixels: Pixels) -> None:
    prepared = prepare(with_orientation(pixels(20, 12), 6), "keep")
    assert (prepared.image.width, prepared.image.height) == (12, 20)
    assert prepared.changes == ("re-encoded", "rotated")
    assert prepare(with_orientation(pixels(20, 12), 1), "keep").changes == ()


def test_unreadable_exif_does_not_spoil_good_pixels(pixels: Pixels) -> None:
    data = Image.fromarray(pixels(20, 12))
    stream = BytesIO()
    data.save(stream, "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff broken")
    assert decode_rgb(stream.getvalue()).shape == (12, 20, 3)


def test_grey(encoded: Encoded) -> None:
    grey = np.arange(200, dtype=np.uint8).reshape(10, 20)
    assert np.array_equal(decode_rgb(encoded(grey, "PNG")), np.repeat(grey[..., None], 3, 2))
    black_and_white = Image.fromarray(grey > 100)
    expected = np.repeat(np.where(grey > 100, 255, 0)[..., None], 3, 2)
    assert np.array_equal(decode_rgb(encoded(black_and_white, "PNG")), expected)


@pytest.mark.parametrize("fmt", ["PNG", "TIFF"])
def test_16_bit_grey_keeps_its_upper_byte(encoded: Encoded, fmt: str) -> None:
    values = (np.arange(256, dtype=np.uint16) * 257).reshape(16, 16)
    expected = np.repeat((values >> 8).astype(np.uint8)[..., None], 3, 2)
    assert np.array_equal(decode_rgb(encoded(Image.fromarray(values), fmt)), expected)


def test_32_bit_pixels_are_refused(encoded: Encoded) -> None:
    with pytest.raises(ValueError, match="no defined range"):
        decode_rgb(encoded(Image.fromarray(np.full((4, 4), 70_000, np.int32)), "TIFF"))
    with pytest.raises(ValueError, match="mode F"):
        decode_rgb(encoded(Image.fromarray(np.zeros((4, 4), np.float32)), "TIFF"))


@pytest.mark.parametrize("fmt", ["PNG", "WEBP"])
def test_alpha_goes_over_white(encoded: Encoded, fmt: str) -> None:
    rgba = np.zeros((2, 3, 4), np.uint8)
    rgba[..., 0] = 200
    rgba[0, :, 3] = (0, 128, 255)
    rgba[1, :, 3] = 255
    shown = decode_rgb(
        encoded(Image.fromarray(rgba), fmt, **({"lossless": True, "exact": True} if fmt == "WEBP" else {}))
    )
    assert shown[0, 0].tolist() == [255, 255, 255]
    assert np.abs(shown[0, 1].astype(int) - [227, 127, 127]).max() <= 1
    assert shown[0, 2].tolist() == shown[1, 0].tolist() == [200, 0, 0]


def test_other_kinds_of_transparency(encoded: Encoded) -> None:
    grey_alpha = Image.merge("LA", [Image.new("L", (2, 1), 90), Image.fromarray(np.array([[0, 255]], np.uint8))])
    assert decode_rgb(encoded(grey_alpha, "PNG"))[0].tolist() == [[255] * 3, [90] * 3]
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putpixel((1, 0), 1)
    assert decode_rgb(encoded(palette, "PNG"))[0].tolist() == [[10, 20, 30], [40, 50, 60]]
    assert decode_rgb(encoded(palette, "PNG", transparency=0))[0].tolist() == [[255] * 3, [40, 50, 60]]
    assert decode_rgb(encoded(palette, "GIF", transparency=0))[0].tolist() == [[255] * 3, [40, 50, 60]]
    colour = Image.new("RGB", (2, 1), (1, 2, 3))
    colour.putpixel((1, 0), (7, 8, 9))
    assert decode_rgb(encoded(colour, "PNG", transparency=(1, 2, 3)))[0].tolist() == [[255] * 3, [7, 8, 9]]


def test_cmyk_jpegs(pixels: Pixels, encoded: Encoded) -> None:
    image = Image.fromarray(pixels(32, 24))
    data = encoded(image.convert("CMYK"), "JPEG", quality=95)
    assert np.abs(decode_rgb(data).astype(int) - pixels(32, 24)).mean() < 6
    assert prepare(data, "keep").changes == ("re-encoded", "from CMYK")


def test_premultiplied_and_odd_modes() -> None:
    grey = Image.new("LA", (2, 2), (100, 255)).convert("La")
    assert np.asarray(to_rgb(grey))[0, 0].tolist() == [100] * 3
    assert np.asarray(to_rgb(Image.new("YCbCr", (2, 2), (128, 128, 128))))[0, 0].tolist() == [128] * 3


@pytest.mark.parametrize("fmt", ["JPEG", "PNG", "WEBP", "BMP", "GIF"])
def test_truncated_files_are_errors(pixels: Pixels, encoded: Encoded, fmt: str) -> None:
    data = encoded(pixels(64, 64), fmt)
    for length in (1, 3, 10, len(data) // 4, len(data) // 2, len(data) - 40):
        with pytest.raises(ValueError):
            prepare(data[:length], "keep")
        with pytest.raises(ValueError):
            decode_rgb(data[:length])
        with pytest.raises(ValueError):
            decode_stream(data[:length])


@pytest.mark.parametrize("data", [b"", b"hello", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", bytes(100)])
def test_what_is_no_image(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        decode_rgb(data)


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
    prepared = prepare(data, "keep")
    assert prepared.image.data == data and prepared.image.mode == MODE_JPG
    assert (prepared.image.width, prepared.image.height, prepared.changes) == (50, 40, ())


def test_grey_jpegs_are_kept(pixels: Pixels, encoded: Encoded) -> None:
    data = encoded(pixels(50, 40)[..., 0], "JPEG")
    assert prepare(data, "keep").image.data == data


def test_files_of_several_pictures_are_not_kept(pixels: Pixels, encoded: Encoded) -> None:
    second = Image.fromarray(pixels(50, 40, 1))
    data = encoded(pixels(50, 40), "MPO", save_all=True, append_images=[second])
    prepared = prepare(data, "keep")
    assert prepared.changes == ("re-encoded",)
    assert np.abs(decode_stream(prepared.image.data).astype(int) - pixels(50, 40)).mean() < 6
    frames = encoded(pixels(50, 40), "WEBP", save_all=True, append_images=[second], lossless=True)
    assert np.array_equal(decode_rgb(frames), pixels(50, 40))


@pytest.mark.parametrize("options", [{}, {"progressive": True}])
def test_kept_jpegs_are_decoded_to_their_end(pixels: Pixels, encoded: Encoded, options: dict[str, Any]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8)
    data = encoded(noise, "JPEG", **options)
    assert prepare(data, "keep").image.width == 300
    for share in (0.1, 0.5, 0.9, 0.99):
        with pytest.raises(ValueError, match="truncated"):
            prepare(data[: int(share * len(data))], "keep")


def test_modes(pixels: Pixels, encoded: Encoded) -> None:
    data = encoded(pixels(50, 40), "JPEG", quality=60)
    again, raw = prepare(data, "jpg", quality=95), prepare(data, "raw")
    assert again.image.data != data and again.changes == ("re-encoded",)
    with Image.open(BytesIO(again.image.data)) as image:
        assert image.format == "JPEG"
    frame = jpeg.read_frame(again.image.data)
    assert frame is not None and frame.factors == ((2, 2), (1, 1), (1, 1))
    assert raw.changes == ("as pixels",)
    assert raw.image.mode == MODE_RAW and raw.image.data == decode_rgb(data).tobytes()
    assert len(prepare(data, "jpg", quality=20).image.data) < len(again.image.data)


def test_max_resolution_only_shrinks(pixels: Pixels, encoded: Encoded) -> None:
    data = encoded(pixels(400, 100), "JPEG", quality=95)
    same = prepare(data, "keep", max_resolution=400)
    assert same.image.data == data
    small = prepare(data, "raw", max_resolution=100)
    assert (small.image.width, small.image.height) == (100, 25)
    shown = np.frombuffer(small.image.data, np.uint8).reshape(25, 100, 3)
    expected = np.asarray(Image.fromarray(pixels(400, 100)).resize((100, 25), Image.Resampling.LANCZOS))
    assert np.abs(shown.astype(int) - expected).mean() < 1.5
    thin = prepare(encoded(pixels(300, 1), "PNG"), "keep", max_resolution=10)
    assert (thin.image.width, thin.image.height) == (10, 1)


def test_max_resolution_of_a_rotated_image(pixels: Pixels) -> None:
    prepared = prepare(with_orientation(pixels(400, 100), 6, quality=95), "keep", max_resolution=40)
    assert (prepared.image.width, prepared.image.height) == (10, 40)
    assert prepared.changes == ("re-encoded", "rotated", "resized")


def test_sides_beyond_the_format_are_refused() -> None:
    stream = BytesIO()
    Image.new("L", (70_000, 1)).save(stream, "PNG")
    with pytest.raises(ValueError, match=r"70000x1 pixels.*--max-resolution"):
        prepare(stream.getvalue(), "raw")
    assert prepare(stream.getvalue(), "raw", max_resolution=1000).image.width == 1000


def test_frame_headers(pixels: Pixels, encoded: Encoded) -> None:
    frame = jpeg.read_frame(encoded(pixels(33, 21), "JPEG", progressive=True, subsampling="4:2:2"))
    assert frame == jpeg.Frame(jpeg.PROGRESSIVE, 8, 33, 21, ((2, 1), (1, 1), (1, 1)))
    for data in (
        b"",
        b"\xff\xd8",
        b"\xff\xd8\xff\xe0\x00",
        b"\xff\xd8\xff\xe0\x00\x00" * 9,
        b"\xff\xd8" + b"\xff" * 50,
    ):
        assert jpeg.read_frame(data) is None
    assert not jpeg.Frame(0xC9, 8, 1, 1, ((1, 1),) * 3).is_common  # arithmetic coding
    assert not jpeg.Frame(0xC1, 12, 1, 1, ((1, 1),) * 3).is_common
    assert not jpeg.Frame(0xC0, 8, 1, 1, ((3, 1), (1, 1), (1, 1))).is_common
