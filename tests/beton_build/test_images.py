"""Every colour mode, orientation and defect that an image file can come with."""

from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from fasttrain.beton_build.images import decode_rgb, decode_stream, to_rgb

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


def test_premultiplied_and_odd_modes() -> None:
    grey = Image.new("LA", (2, 2), (100, 255)).convert("La")
    assert np.asarray(to_rgb(grey))[0, 0].tolist() == [100] * 3
    assert np.asarray(to_rgb(Image.new("YCbCr", (2, 2), (128, 128, 128))))[0, 0].tolist() == [128] * 3


@pytest.mark.parametrize("fmt", ["JPEG", "PNG", "WEBP", "BMP", "GIF"])
def test_truncated_files_are_errors(pixels: Pixels, encoded: Encoded, fmt: str) -> None:
    data = encoded(pixels(64, 64), fmt)
    for length in (1, 3, 10, len(data) // 4, len(data) // 2, len(data) - 40):
        with pytest.raises(ValueError):
            decode_rgb(data[:length])
        with pytest.raises(ValueError):
            decode_stream(data[:length])


@pytest.mark.parametrize("data", [b"", b"hello", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", bytes(100)])
def test_what_is_no_image(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        decode_rgb(data)
