"""The sound JPEG streams that mutants are made of: every kind that decoders meet, small, the same on every machine."""

import base64
from collections.abc import Callable
from functools import cache
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from fasttrain.tools.mutants.segments import SOF, find_segments

# Arithmetic codes, which Pillow reads but does not write: 34 x 26 pixels by libjpeg-turbo's own encoder.
_ARITHMETIC = (
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAA0JCgsKCA0LCgsODg0PEyAVExISEyccHhcgLikxMC4pLSwzOko+MzZGNywtQFdBRkxOUlNSMj5aYVpQ"
    "YEpRUk//2wBDAQ4ODhMREyYVFSZPNS01T09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT0//yQARCAAaACID"
    "ASIAAhEBAxEB/8wACgAQEAUBEBEF/9oADAMBAAIRAxEAPwD+zC7RuQuEtyeF8BaT3uIRjZcwQ0aAQH7DcXaVuBfRk/Hsq0aMz25XKlCkGkDDCChr"
    "mT6BxXZEsj9fkF+lKHcYvmvidWJ61hQKYHwq61gRsLZE4gsvEs93PiZfgZmXAuRTk2fp5TaQeHULK250sMWZP6nXsaa6ONvIWHpHbc8CLbwbS0Gp"
    "FvlXyVrZW58UgenHhh+vmoH8TbpM/9k="
)
_ARITHMETIC_PROGRESSIVE = (
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAA0JCgsKCA0LCgsODg0PEyAVExISEyccHhcgLikxMC4pLSwzOko+MzZGNywtQFdBRkxOUlNSMj5aYVpQ"
    "YEpRUk//2wBDAQ4ODhMREyYVFSZPNS01T09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT0//ygARCAAaACID"
    "ASIAAhEBAxEB/8wABgAQARD/2gAMAwEAAhADEAAAAf2leaicEbnf7GlB/iP0RGjnWRVVbYxYoa3TJIywKP/MAAQQBf/aAAgBAQABBQI/2IrwaV0J"
    "TTZmzSskk//MAAQRBf/aAAgBAwEBPwEVlrkj2oW7wRaK/8wABBEF/9oACAECAQE/AQ/QgphsCQVHZQ8FHHEz/8wABBAF/9oACAEBAAY/ArkyHP/M"
    "AAQQBf/aAAgBAQABPyGhcWIsAXelcxM0FFcZgmsxxKHA/9oADAMBAAIAAwAAABAZNLUlCP/MAAQRBf/aAAgBAwEBPxCK3bWv95Y/4lpih1T/zAAE"
    "EQX/2gAIAQIBAT8QpJ3nDUMjGuXq/8wABBAF/9oACAEBAAE/EFJNFIQIb5bLviwPiP1xkq5ZsJodDxFPjv/Z"
)


def picture(width: int, height: int, seed: int) -> Image.Image:
    """Waves of colour and some noise, different for every seed."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    waves = [np.sin(x / (3 + channel + seed % 5) + y / (7 - channel)) for channel in range(3)]
    noise = generator.normal(0, 12, (height, width, 3))
    return Image.fromarray(np.clip(127 + 90 * np.stack(waves, -1) + noise, 0, 255).astype(np.uint8))


def _encoded(width: int, height: int, mode: str = "RGB", **options: Any) -> bytes:
    stream = BytesIO()
    picture(width, height, width + height).convert(mode).save(stream, "JPEG", **{"quality": 75, **options})
    return stream.getvalue()


def _with_luma_factors(stream: bytes, factors: int) -> bytes:
    """`stream` with other sampling factors of luma. Where an MCU keeps its number of blocks and the image its number of
    MCUs, the result is as sound as before, with its blocks elsewhere."""
    data = bytearray(stream)
    frame = next(segment for segment in find_segments(stream) if segment.marker in SOF)
    data[frame.body + 7] = factors
    return bytes(data)


def _oriented(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "a camera"
    return _encoded(70, 40, exif=exif)


_STREAMS: dict[str, Callable[[], bytes]] = {
    "4:4:4": lambda: _encoded(61, 47, subsampling="4:4:4"),
    "4:2:2": lambda: _encoded(75, 50, subsampling="4:2:2"),
    "4:2:0": lambda: _encoded(90, 70, subsampling="4:2:0"),
    "4:4:0": lambda: _with_luma_factors(_encoded(64, 64, subsampling="4:2:2"), 0x12),
    "4:1:1": lambda: _with_luma_factors(_encoded(64, 64, subsampling="4:2:0"), 0x41),
    "grey": lambda: _encoded(57, 44, "L"),
    "progressive 4:4:4": lambda: _encoded(50, 51, progressive=True, subsampling="4:4:4"),
    "progressive 4:2:0": lambda: _encoded(99, 65, progressive=True),
    "progressive grey": lambda: _encoded(48, 40, "L", progressive=True),
    "restarts each MCU": lambda: _encoded(80, 48, restart_marker_blocks=1),
    "restarts each row": lambda: _encoded(66, 81, restart_marker_rows=1, subsampling="4:2:2"),
    "progressive with restarts": lambda: _encoded(72, 56, progressive=True, restart_marker_blocks=3),
    "optimised tables": lambda: _encoded(83, 33, optimize=True),
    "quality 1": lambda: _encoded(90, 60, quality=1),
    "quality 100": lambda: _encoded(40, 40, quality=100, subsampling="4:4:4"),
    "RGB": lambda: _encoded(45, 37, keep_rgb=True),
    "CMYK": lambda: _encoded(44, 48, "CMYK"),
    "arithmetic": lambda: base64.b64decode(_ARITHMETIC),
    "progressive arithmetic": lambda: base64.b64decode(_ARITHMETIC_PROGRESSIVE),
    "1x1": lambda: _encoded(1, 1),
    "1x300": lambda: _encoded(1, 300),
    "300x2": lambda: _encoded(300, 2, progressive=True),
    "7x9": lambda: _encoded(7, 9, subsampling="4:2:0"),
    "large": lambda: _encoded(400, 300),
    "EXIF, upright": lambda: _oriented(1),
    "EXIF, turned": lambda: _oriented(6),
    "comment and profile": lambda: _encoded(52, 52, comment=b"a comment", icc_profile=bytes(range(256)) * 3),
}
NAMES = tuple(_STREAMS)


@cache
def stream(name: str) -> bytes:
    """The sound stream `name` of `NAMES`."""
    return _STREAMS[name]()
