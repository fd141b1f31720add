"""Decodes images and brings every colour mode to 8-bit RGB, by one policy.

- EXIF (or XMP) orientation is applied. Embedded colour profiles are ignored.
- Grey and black-and-white: the value goes into all three channels. 16-bit values: the upper 8 bits.
- Transparency (alpha channel, transparent palette entry or colour): over white.
- CMYK and YCCK: Pillow's conversion, Adobe's inverted values included.
- Animations and multi-page files: the first picture.
- 32-bit integer and floating-point pixels have no defined range and are refused.
- A truncated stream is an error; nothing is made up for what is missing. (Wrong bytes inside of a JPEG's entropy code
  that libjpeg bridges with a mere warning cannot be seen through Pillow.)
"""

import os
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fasttrain.beton_build import jpeg
from fasttrain.beton_build.format import MAX_SIDE, MODE_JPG, MODE_RAW
from fasttrain.beton_build.values import EncodedImage

Data = bytes | bytearray | memoryview

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}
)
DEFAULT_QUALITY = 95
_ORIENTATION_TAG = 0x0112
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class Prepared:
    """An image ready to be stored, and what was done to it."""

    image: EncodedImage
    changes: tuple[str, ...]  # of "re-encoded", "as pixels", "rotated", "resized", "from MODE"; empty: bytes kept


def decode_rgb(source: Data | str | os.PathLike[str]) -> np.ndarray:
    """Decode an image file, or its bytes, to RGB by the policy of this module.

    Returns:
        (height, width, 3) uint8 RGB.

    Raises:
        ValueError: it cannot be decoded; the message is the reason.
        OSError: the file cannot be read.
    """
    data = source if isinstance(source, bytes | bytearray | memoryview) else Path(source).read_bytes()
    with _opened(data) as image:
        return np.asarray(_loaded(image, normalise))


def decode_stream(data: Data, expect: tuple[int, int] | None = None) -> np.ndarray:
    """Decode a stream as it is stored in a `.beton`: no EXIF orientation is applied.

    Args:
        expect: (height, width) that the image must have.

    Returns:
        (height, width, 3) uint8 RGB.

    Raises:
        ValueError: the stream cannot be decoded or has another size.
    """
    with _opened(data) as image:
        if expect is not None and image.size != (expect[1], expect[0]):
            raise ValueError(f"the stream is {image.width}x{image.height}, the file says {expect[1]}x{expect[0]}")
        return np.asarray(_loaded(image, to_rgb))


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
        except Exception as error:  # see `_opened`
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


def prepare(
    data: bytes | EncodedImage, mode: str, quality: int = DEFAULT_QUALITY, max_resolution: int | None = None
) -> Prepared:
    """Decode an image and bring it into the form in which it is stored.

    Args:
        data: the bytes of an image file, or an image as another `.beton` stores it.
        mode: "keep" leaves the bytes of a fitting JPEG as they are (after decoding them once) and re-encodes all
            else; "jpg" re-encodes everything; "raw" stores pixels.
        quality: of JPEG re-encoding, with 4:2:0 sub-sampling.
        max_resolution: longest side in pixels; larger images are shrunk (Lanczos; a JPEG more than twice as large is
            first decoded at a fraction of its size, never below twice the target).

    Raises:
        ValueError: the image cannot be decoded or stored; the message is the reason.
    """
    with _opened(data) as image:
        shrinks = max_resolution is not None and max(image.size) > max_resolution
        keeps = mode == "keep" and not shrinks and keep_bytes_ok(data, image)
        changes = _changes(image, mode, shrinks, keeps)
        if keeps:
            kept = EncodedImage(data, MODE_JPG, image.width, image.height)
            _verify_stream(image)
            return Prepared(kept, ())
        if shrinks and max_resolution is not None:
            image.draft(None, _fitted(image.size, 2 * max_resolution))
        rgb = _loaded(image, normalise)
    if shrinks and max_resolution is not None:
        rgb = rgb.resize(_fitted(rgb.size, max_resolution), Image.Resampling.LANCZOS)
    if max(rgb.size) > MAX_SIDE:
        raise ValueError(f"it is {rgb.width}x{rgb.height} pixels; sides go up to {MAX_SIDE}: use --max-resolution")
    if mode == "raw":
        return Prepared(EncodedImage(rgb.tobytes(), MODE_RAW, rgb.width, rgb.height), changes)
    stream = BytesIO()
    rgb.save(stream, "JPEG", quality=quality, subsampling="4:2:0")
    return Prepared(EncodedImage(stream.getvalue(), MODE_JPG, rgb.width, rgb.height), changes)


def _verify_stream(image: Image.Image) -> None:
    """Decode the whole entropy code of a JPEG, but the pixels at an eighth of the size only: a third faster.

    Raises:
        ValueError: the stream cannot be decoded.
    """
    image.draft(None, (1, 1))
    _loaded(image, lambda loaded: loaded)


def keep_bytes_ok(data: Data, image: Image.Image) -> bool:
    """Whether a file's bytes can be stored unchanged: a JPEG that every decoder reads, and that needs no rotation.

    That is a Huffman-coded, 8-bit stream, baseline or progressive, with one component (FFCV decodes grey to RGB) or
    three of a usual sub-sampling.
    """
    frame = jpeg.read_frame(data)
    if frame is None or image.format != "JPEG" or image.size != (frame.width, frame.height):
        return False
    return frame.is_common and image.mode in ("RGB", "L") and orientation(image) == 1


def _changes(image: Image.Image, mode: str, shrinks: bool, keeps: bool) -> tuple[str, ...]:
    if keeps:
        return ()
    changes = ["as pixels" if mode == "raw" else "re-encoded"]
    if orientation(image) != 1:
        changes.append("rotated")
    if shrinks:
        changes.append("resized")
    if image.mode != "RGB" or "transparency" in image.info:
        changes.append(f"from {image.mode}{' with transparency' if 'transparency' in image.info else ''}")
    return tuple(changes)


def _fitted(size: tuple[int, int], longest: int) -> tuple[int, int]:
    """`size` scaled so that its longest side is `longest`; never enlarged, no side under 1."""
    scale = min(1.0, longest / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _opened(data: Data) -> Image.Image:
    if not memoryview(data).nbytes:
        raise ValueError("it is empty")
    try:
        return Image.open(BytesIO(data))
    except Image.UnidentifiedImageError:
        raise ValueError("it is not an image of a known format") from None
    except Exception as error:  # Pillow's format plug-ins raise many kinds of error on damaged headers
        raise ValueError(_reason(error)) from None


def _loaded(image: Image.Image, then: Any) -> Any:
    """Decode all pixels and hand the image to `then`; whatever the decoder raises becomes a ValueError."""
    try:
        image.load()
        return then(image)
    except MemoryError:
        raise
    except Exception as error:  # see `_opened`
        raise ValueError(_reason(error)) from None


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
