"""Checks and re-encodes JPEG streams, natively on libjpeg-turbo where the extension was built, else through Pillow."""

from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from fasttrain.kernels import jpeg_markers

try:
    from fasttrain.kernels import _native
except ImportError:  # installed without a compiler or libjpeg's headers
    _native = None  # type: ignore[assignment]

Data = bytes | bytearray | memoryview

_RGB_SPACES = frozenset({1, 2, 3})  # libjpeg's JCS_GRAYSCALE, JCS_RGB, JCS_YCbCr: what decoders turn into RGB


@dataclass(frozen=True)
class JpegFacts:
    """What a sound JPEG stream is.

    Attributes:
        length: bytes up to and including the end marker; what follows is no part of the image.
        width, height: in pixels, as coded (EXIF orientation not applied).
        components: 1 (grey), 3 or 4.
        is_common: whether every decoder turns it into RGB: Huffman-coded, 8-bit, baseline or progressive, grey or three
            components of a usual sub-sampling.
        has_metadata: an APP1 segment (EXIF or XMP), which may ask for a rotation.
        has_profile: an embedded colour profile.
    """

    length: int
    width: int
    height: int
    components: int
    is_common: bool
    has_metadata: bool
    has_profile: bool


def native_available() -> bool:
    """Whether the native extension was built."""
    return _native is not None


def jpeg_library() -> str | None:
    """The JPEG library that the native extension was built with, as ``libjpeg-turbo 3.1.2``; None without one."""
    return None if _native is None else _native.jpeg_library


def check_jpeg(data: Data) -> JpegFacts:
    """Decode the whole entropy code of a JPEG without making pixels of it.

    Damaged codes, missing data and lost restart markers are errors, as are bytes left over between the last code and
    the end marker unless they are zeros.

    Raises:
        ValueError: the stream is damaged or truncated, or no JPEG; the message is the reason.
    """
    return check_jpeg_reference(data) if _native is None else _facts(_native.check(data))


def checked_index(data: Data) -> tuple[JpegFacts, np.ndarray | None]:
    """`check_jpeg` and `kernels.indexed.index_jpeg` in one walk through the stream.

    Returns:
        What it is, and its random-access index, (entries,) uint64; None for images that have none.

    Raises:
        ValueError: the stream is damaged or truncated, or no JPEG; the message is the reason.
    """
    if _native is None:
        return check_jpeg_reference(data), None
    found = _native.check(data, with_index=True)
    return _facts(found), found["index"]


def _facts(found: dict[str, Any]) -> JpegFacts:
    frame = jpeg_markers.Frame(found["process"], found["precision"], found["width"], found["height"], found["factors"])
    return JpegFacts(
        length=found["length"],
        width=found["width"],
        height=found["height"],
        components=len(found["factors"]),
        is_common=frame.is_common and found["colour_space"] in _RGB_SPACES,
        has_metadata=found["has_metadata"],
        has_profile=found["has_profile"],
    )


def check_jpeg_reference(data: Data) -> JpegFacts:
    """`check_jpeg` through Pillow. It finds missing data, but not damage that libjpeg bridges with a mere warning."""
    header = jpeg_markers.read_header(data)
    if header is None:
        raise ValueError("it is not a JPEG, or its header is damaged")
    try:
        with Image.open(BytesIO(data)) as image:
            mode = image.mode
            image.draft(None, (1, 1))  # pixels at an eighth of the size: a third faster
            image.load()
    except Exception as error:  # Pillow raises many kinds of error on damaged files
        raise ValueError(str(error) or type(error).__name__) from None
    frame = header.frame
    return JpegFacts(
        length=jpeg_markers.find_end(data, header.scan_at),
        width=frame.width,
        height=frame.height,
        components=len(frame.factors),
        is_common=frame.is_common and mode in ("RGB", "L"),
        has_metadata=header.has_metadata,
        has_profile=header.has_profile,
    )


def transcode_jpeg(data: Data, quality: int) -> bytes | None:
    """Re-encode a JPEG at its size as a baseline one with 4:2:0 sub-sampling, grey staying grey, without RGB between.

    Args:
        quality: 1 to 100, of libjpeg's standard tables.

    Returns:
        The new stream; None where the extension was not built, or for kinds that it does not handle (CMYK, RGB-coded,
        unusual sub-sampling).

    Raises:
        ValueError: the stream is damaged.
    """
    return None if _native is None else _native.transcode(data, quality)


def repack_jpeg(data: Data) -> bytes | None:
    """Code a JPEG's coefficients anew, so that it can be indexed (`fasttrain.kernels.indexed`): a sequential one with
    Huffman codes, a single scan and no restart markers, of the same pixels.

    The application and comment segments stay as they are; what follows the end marker is no part of the image.

    Returns:
        The new stream; None where the extension was not built, and for streams that are of this kind already or cannot
        be made so: other than 8 bits, two or four components, unusual sub-sampling, coefficients beyond what baseline
        codes can say, progressive ones that leave some of their coefficients open, more than 178,956,970 pixels.

    Raises:
        ValueError: the stream is damaged or truncated, or no JPEG (see `check_jpeg`); the message is the reason.
    """
    return None if _native is None else _native.repack(data)
