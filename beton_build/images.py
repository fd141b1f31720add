"""Decodes images and brings every colour mode to 8-bit RGB, by one policy that is stated here."""

from io import BytesIO

import numpy as np
from PIL import Image

Data = bytes | bytearray | memoryview


def decode_stream(data: Data, expect: tuple[int, int] | None = None) -> np.ndarray:
    """Decode a stream as it is stored in a `.beton`: no EXIF orientation is applied.

    Args:
        expect: (height, width) that the image must have.

    Returns:
        (height, width, 3) uint8 RGB.

    Raises:
        ValueError: the stream cannot be decoded or has another size.
    """
    try:
        with Image.open(BytesIO(data)) as image:
            if expect is not None and image.size != (expect[1], expect[0]):
                raise ValueError(f"the stream is {image.width}x{image.height}, the file says {expect[1]}x{expect[0]}")
            return np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(str(error)) from None
