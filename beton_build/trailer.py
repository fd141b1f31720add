"""What FFCV has no place for, kept in the same file where FFCV never looks.

The trailer is made of ordinary full pages between the data pages and the allocation table (a file without pages gets
one). It starts with a directory of named sections; a footer of fixed size, right before the allocation table, tells
where the directory lies. The directory and every section carry an xxh3-64 checksum.

    directory   one record a section: name, absolute offset, length, checksum
    sections    each starting at a multiple of 64 bytes:
        json        class names, build options, source fingerprint, counts, the "complete" mark (UTF-8 JSON)
        digests     uint64 (2,): xxh3-64 of the file's head (header to last metadata record) and of the allocation table
        id_offsets  uint64 (N + 1,): where each sample's string id starts in `id_blob`
        id_blob     the ids, UTF-8
        keys        uint64 (N,): xxh3-64 of each id, the key of the loader's randomness
        image_sizes uint64 (N,): bytes of each sample's image region
        image_xxh3  uint64 (N,): xxh3-64 of each sample's image region
        index_sizes uint64 (N,): bytes of the random-access index of each sample's image, which lies behind the image's
                    region, from the next multiple of 8 on; 0 without one; where there are any
        index_xxh3  uint64 (N,): xxh3-64 of each such index; where there are any
        other_xxh3  uint64 (N,): xxh3-64 of each sample's other regions, one after the other; where there are any
        originals   (N,) records: width, height (pixels) and kind, an index into the JSON section's "original_kinds", of
                    each image before it was converted; where they are known
    padding     zeros
    footer      magic, version, offset, length and checksum of the directory
"""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import xxhash

from fasttrain.base.errors import BetonError
from fasttrain.beton_build.format import REGION_ALIGNMENT, round_up

MAGIC = b"FASTBETN"
TRAILER_VERSION = 1
FOOTER = np.dtype(
    [
        ("magic", "V8"),
        ("version", "<u4"),
        ("reserved", "<u4"),
        ("offset", "<u8"),
        ("length", "<u8"),
        ("checksum", "<u8"),
    ]
)
SECTION = np.dtype([("name", "V16"), ("offset", "<u8"), ("length", "<u8"), ("checksum", "<u8")])
MAX_SECTIONS = 64

Data = bytes | bytearray | memoryview


def checksum(data: Data) -> int:
    """xxh3-64 of `data`."""
    return xxhash.xxh3_64_intdigest(data)


def sample_key(sample_id: str) -> int:
    """The key of a sample's randomness: xxh3-64 of its string id."""
    return xxhash.xxh3_64_intdigest(encode_id(sample_id))


def encode_id(sample_id: str) -> bytes:
    """UTF-8; bytes of a file name that are not UTF-8 go through unchanged."""
    return sample_id.encode("utf-8", "surrogateescape")


def decode_id(data: Data) -> str:
    """Inverse of `encode_id`."""
    return bytes(data).decode("utf-8", "surrogateescape")


def trailer_size(lengths: Mapping[str, int], page_size: int) -> int:
    """Bytes of the whole trailer (a multiple of `page_size`) whose sections have these lengths."""
    used = round_up(SECTION.itemsize * len(lengths), REGION_ALIGNMENT)
    used += sum(round_up(length, REGION_ALIGNMENT) for length in lengths.values())
    return round_up(used + FOOTER.itemsize, page_size)


def pack_trailer(sections: Mapping[str, Data], start: int, page_size: int) -> tuple[bytes, bytes]:
    """The trailer that begins at file offset `start`: (directory and sections, footer); zeros belong between them."""
    directory = np.zeros(len(sections), SECTION)
    chunks: list[Data] = []
    position = round_up(directory.nbytes, REGION_ALIGNMENT)
    for index, (name, data) in enumerate(sections.items()):
        length = memoryview(data).nbytes
        directory[index] = (name.encode("ascii").ljust(16, b"\0"), start + position, length, checksum(data))
        padded = round_up(length, REGION_ALIGNMENT)
        chunks += [data, bytes(padded - length)]
        position += padded
    head = directory.tobytes()
    body = b"".join([head, bytes(round_up(len(head), REGION_ALIGNMENT) - len(head)), *chunks])
    footer = np.zeros(1, FOOTER)
    footer[0] = (MAGIC, TRAILER_VERSION, 0, start, len(head), checksum(head))
    return body, footer.tobytes()


class Trailer:
    """A trailer found in a file; sections are checked against their checksum when first asked for."""

    def __init__(self, name: str, sections: dict[str, tuple[memoryview, int]], start: int) -> None:
        self.name = name
        self.start = start
        self._sections = sections
        self._checked: set[str] = set()

    def section(self, section: str) -> memoryview:
        """The bytes of one section.

        Raises:
            BetonError: the section is missing or its checksum does not hold.
        """
        if section not in self._sections:
            raise BetonError(f"{self.name} is damaged: its trailer has no section {section!r}; build the file again")
        data, expected = self._sections[section]
        if section not in self._checked:
            if checksum(data) != expected:
                raise BetonError(
                    f"{self.name} is damaged: the checksum of its trailer section {section!r} does not hold; "
                    "build the file again or fetch it again"
                )
            self._checked.add(section)
        return data

    def array(self, section: str, count: int) -> np.ndarray[Any, np.dtype[np.uint64]]:
        """A section of `count` unsigned 64-bit numbers."""
        data = self.section(section)
        if data.nbytes != 8 * count:
            raise BetonError(
                f"{self.name} is damaged: its trailer section {section!r} has {data.nbytes} bytes, not {8 * count}"
            )
        return np.frombuffer(data, "<u8")

    def __contains__(self, section: str) -> bool:
        return section in self._sections

    def header(self) -> dict[str, Any]:
        """The JSON section."""
        try:
            value = json.loads(bytes(self.section("json")))
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            raise BetonError(f"{self.name} is damaged: the JSON section of its trailer cannot be read")
        return value


def find_trailer(data: memoryview, name: str, pages_start: int, pages_end: int) -> Trailer | None:
    """The trailer of the file `data`, whose pages lie in ``[pages_start, pages_end)``; None when it has none.

    Raises:
        BetonError: there is a trailer, but it is damaged or of a newer version.
    """
    at = pages_end - FOOTER.itemsize
    if at < pages_start:
        return None
    footer = np.frombuffer(data, FOOTER, 1, at)[0]
    if footer["magic"].tobytes() != MAGIC:
        return None
    if footer["version"] != TRAILER_VERSION:
        raise BetonError(f"{name} has a trailer of version {footer['version']}; this program reads {TRAILER_VERSION}")
    start, length = int(footer["offset"]), int(footer["length"])
    if not (pages_start <= start <= at and length <= min(at - start, MAX_SECTIONS * SECTION.itemsize)):
        raise BetonError(f"{name} is damaged: the footer of its trailer points outside of the file's pages")
    directory = data[start : start + length]
    if length % SECTION.itemsize or checksum(directory) != int(footer["checksum"]):
        raise BetonError(f"{name} is damaged: the checksum of its trailer's directory does not hold")
    sections = {}
    for record in np.frombuffer(directory, SECTION):
        offset, size = int(record["offset"]), int(record["length"])
        if not (start <= offset <= at and size <= at - offset):
            raise BetonError(f"{name} is damaged: a section of its trailer lies outside of the file's pages")
        section = record["name"].tobytes().rstrip(b"\0").decode("ascii", "replace")
        sections[section] = (data[offset : offset + size], int(record["checksum"]))
    return Trailer(name, sections, start)
