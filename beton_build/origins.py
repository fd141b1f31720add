"""Where the bytes of one image lie: in a file of its own, in a tar archive, or in another `.beton`."""

import os
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np

from fasttrain.beton_build.format import MODE_RAW
from fasttrain.beton_build.images import decode_rgb, decode_stream, upright_size
from fasttrain.beton_build.reader import BetonReader
from fasttrain.beton_build.values import EncodedImage


@dataclass(frozen=True, slots=True)
class TarMember:
    """An uncompressed member of a tar archive.

    Attributes:
        tar: the archive.
        offset, size: where the member's bytes lie in it.
        name: the member's name.
    """

    tar: Path
    offset: int
    size: int
    name: str

    def read_bytes(self) -> bytes:
        """The member's bytes.

        Raises:
            OSError: the archive cannot be read, or has become shorter.
        """
        with self.tar.open("rb") as file:
            file.seek(self.offset)
            data = file.read(self.size)
        if len(data) < self.size:
            raise OSError(f"{self.tar} ends within the member {self.name}")
        return data

    def __str__(self) -> str:
        return f"{self.tar}:{self.name}"


@dataclass(frozen=True, slots=True)
class BetonImage:
    """An image of another `.beton`, taken as it is stored there."""

    reader: BetonReader
    row: int

    def stored(self) -> EncodedImage:
        """The stored stream or pixels."""
        reader, row = self.reader, self.row
        data = bytes(reader.image_bytes(row))
        return EncodedImage(data, int(reader.modes[row]), int(reader.widths[row]), int(reader.heights[row]))

    def __str__(self) -> str:
        return f"{self.reader.path}[{self.row}]"


Origin = Path | TarMember | BetonImage


def read_origin(origin: Origin) -> bytes | EncodedImage:
    """The bytes of an image file, or an image as another `.beton` stores it.

    Raises:
        OSError: it cannot be read.
    """
    if isinstance(origin, Path):
        return _read_file(origin)
    return origin.stored() if isinstance(origin, BetonImage) else origin.read_bytes()


def _read_file(path: Path) -> bytes:
    """``path.read_bytes()`` without Python's buffered files, which cost as much as the reading itself."""
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
    try:
        size = os.fstat(descriptor).st_size
        data = os.read(descriptor, size + 1)
        if len(data) == size:
            return data
        parts = [data]
        while part := os.read(descriptor, 1 << 20):
            parts.append(part)
        return b"".join(parts)
    finally:
        os.close(descriptor)


def decode_origin(origin: Origin) -> np.ndarray:
    """Pixels of an image, (height, width, 3) uint8 RGB.

    Raises:
        ValueError: it cannot be decoded; the message is the reason.
        OSError: it cannot be read.
    """
    found = read_origin(origin)
    if isinstance(found, bytes):
        return decode_rgb(found)
    if found.mode == MODE_RAW:
        return np.frombuffer(found.data, np.uint8).reshape(found.height, found.width, 3)
    return decode_stream(found.data, expect=(found.height, found.width))


def decoded_size(origin: Origin) -> tuple[int, int]:
    """(width, height) of what `decode_origin` gives, read from the image's header.

    Raises:
        ValueError: it is not an image; the message is the reason.
        OSError: it cannot be read.
    """
    if isinstance(origin, BetonImage):
        return int(origin.reader.widths[origin.row]), int(origin.reader.heights[origin.row])
    return upright_size(origin if isinstance(origin, Path) else BytesIO(origin.read_bytes()))


def stored_bytes(origin: Origin) -> int:
    """How many bytes an image takes where it lies; 0 when there is no such file (which reading it will report)."""
    if isinstance(origin, TarMember):
        return origin.size
    if isinstance(origin, BetonImage):
        return int(np.uint64(origin.reader.sizes[origin.row]))
    try:
        return origin.stat().st_size
    except OSError:
        return 0
