"""Decodes images and brings every colour mode to 8-bit RGB, by one policy.

- EXIF (or XMP) orientation is applied. Embedded colour (ICC) profiles are ignored: values are taken for sRGB.
- Grey and black-and-white: the value goes into all three channels. 16-bit values: the upper 8 bits.
- Transparency (alpha channel, transparent palette entry or colour): over white.
- CMYK and YCCK: Pillow's conversion, Adobe's inverted values included.
- Animations and multi-page files: the first picture.
- 32-bit integer and floating-point pixels have no defined range and are refused.
- A truncated stream is an error; nothing is made up for what is missing. (Wrong bytes inside of a JPEG's entropy code
  that libjpeg bridges with a mere warning cannot be seen through Pillow; `kernels.jpeg` finds them.)
"""

import os
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

Data = bytes | bytearray | memoryview

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}
)
_ORIENTATION_TAG = 0x0112
_UNKNOWN = "it is not an image of a known format"
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode_rgb(source: Data | str | os.PathLike[str]) -> np.ndarray:
    """Decode an image file, or its bytes, to RGB by the policy of this module.

    Returns:
        (height, width, 3) uint8 RGB.

    Raises:
        ValueError: it cannot be decoded; the message is the reason.
        OSError: the file cannot be read.
    """
    data = source if isinstance(source, bytes | bytearray | memoryview) else Path(source).read_bytes()
    with opened(data) as image:
        return np.asarray(loaded(image, normalise))


def decode_stream(data: Data, expect: tuple[int, int] | None = None) -> np.ndarray:
    """Decode a stream as it is stored in a `.beton`: no EXIF orientation is applied.

    Args:
        expect: (height, width) that the image must have.

    Returns:
        (height, width, 3) uint8 RGB.

    Raises:
        ValueError: the stream cannot be decoded or has another size.
    """
    with opened(data) as image:
        if expect is not None and image.size != (expect[1], expect[0]):
            raise ValueError(f"the stream is {image.width}x{image.height}, the file says {expect[1]}x{expect[0]}")
        return np.asarray(loaded(image, to_rgb))


def normalise(image: Image.Image) -> Image.Image:
    """Apply the orientation and convert to RGB, by the policy of this module.

    Raises:
        ValueError: the pixels have no defined range.
    """
    turn = _TRANSPOSE.get(orientation(image))
    image = to_rgb(image)
    return image if turn is None else image.transpose(turn)


def upright_size(source: Path | BytesIO) -> tuple[int, int]:
    """(width, height) of what `decode_rgb` gives, read from the file's header.

    Raises:
        ValueError: it is not an image; the message is the reason.
        OSError: the file cannot be read.
    """
    with source.open("rb") if isinstance(source, Path) else source as file:
        try:
            image = Image.open(file)
        except Image.UnidentifiedImageError:  # whose message shows Python's name of the file
            raise ValueError(_UNKNOWN) from None
        except Exception as error:  # see `opened`
            raise ValueError(_reason(error)) from None
        swapped = orientation(image) >= 5  # orientations 5 to 8 turn the image by a quarter
        return (image.height, image.width) if swapped else (image.width, image.height)


def orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 (upright) when there is none or it is unreadable."""
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # Pillow raises a dozen kinds of error on a broken EXIF block, which says nothing of the pixels
        return 1
    return value if value in _TRANSPOSE else 1


def turn_of(value: int) -> Image.Transpose | None:
    """What an image of an EXIF orientation is turned by to stand upright, None for nothing."""
    return _TRANSPOSE.get(value)


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert any colour mode to RGB, by the policy of this module.

    Raises:
        ValueError: the pixels have no defined range.
    """
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I"):
        return _from_16_bit(image).convert("RGB")
    if image.mode in ("F", "LAB", "HSV"):
        raise ValueError(f"pixels of mode {image.mode} have no defined RGB values; save the image as 8-bit RGB")
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "La", "RGBa"):
        if image.mode == "La":
            image = image.convert("LA")
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")


def _from_16_bit(image: Image.Image) -> Image.Image:
    """16-bit grey to 8 bits by its upper byte; Pillow's own conversion would clip at 255."""
    values = np.asarray(image)
    if values.size and (values.min() < 0 or values.max() > 65_535):
        raise ValueError("32-bit integer pixels have no defined range; save the image as 8-bit RGB")
    return Image.fromarray((values.astype(np.uint16) >> 8).astype(np.uint8))


def opened(data: Data) -> Image.Image:
    """An image file's bytes as a Pillow image, its header read.

    Raises:
        ValueError: it is not an image; the message is the reason.
    """
    if not memoryview(data).nbytes:
        raise ValueError("it is empty")
    try:
        return Image.open(BytesIO(data))
    except Image.UnidentifiedImageError:
        raise ValueError(_UNKNOWN) from None
    except Exception as error:  # Pillow's format plug-ins raise many kinds of error on damaged headers
        raise ValueError(_reason(error)) from None


def loaded(image: Image.Image, then: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """Decode all pixels and give what `then` makes of the image.

    Raises:
        ValueError: the pixels cannot be decoded; the message is the reason.
    """
    try:
        image.load()
        return then(image)
    except MemoryError:
        raise
    except Exception as error:  # see `opened`
        raise ValueError(_reason(error)) from None


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
