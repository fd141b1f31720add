"""Reads the markers of a JPEG stream (ITU-T T.81, annex B), without decoding it."""

import struct
from dataclasses import dataclass

Data = bytes | bytearray | memoryview

BASELINE, EXTENDED, PROGRESSIVE = 0xC0, 0xC1, 0xC2
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # all SOFn; the three others are DHT, JPG, DAC
_STANDALONE = {0x01, *range(0xD0, 0xD8)}  # markers without a length

# Luma factors that TurboJPEG knows, with chroma at 1x1: 4:4:4, 4:2:2, 4:4:0, 4:2:0, 4:1:1
_LUMA_FACTORS = {(1, 1), (2, 1), (1, 2), (2, 2), (4, 1)}


@dataclass(frozen=True)
class Frame:
    """The frame header: which process, and the shape of the samples."""

    process: int  # the SOF marker's second byte
    precision: int  # bits a sample
    width: int
    height: int
    factors: tuple[tuple[int, int], ...]  # (horizontal, vertical) sampling factors of each component

    @property
    def is_common(self) -> bool:
        """Huffman-coded 8-bit grey or three-component stream of a usual sub-sampling: what every decoder reads."""
        if self.process not in (BASELINE, EXTENDED, PROGRESSIVE) or self.precision != 8:
            return False
        if len(self.factors) == 1:
            return True
        return len(self.factors) == 3 and self.factors[0] in _LUMA_FACTORS and self.factors[1:] == ((1, 1), (1, 1))


@dataclass(frozen=True)
class Header:
    """What stands before the first scan: the frame header, where the scan starts, and which segments there are."""

    frame: Frame
    scan_at: int
    has_metadata: bool  # APP1: EXIF or XMP
    has_profile: bool  # APP2 with an ICC profile
    restarts: bool  # markers between intervals of the scan
    scan_components: int  # of the first scan


def read_header(data: Data) -> Header | None:
    """The header of a JPEG stream, None when `data` is not one or its markers are broken."""
    view = memoryview(data)
    if view.nbytes < 4 or bytes(view[:2]) != b"\xff\xd8":
        return None
    position = 2
    frame, metadata, profile, restarts = None, False, False, False
    try:
        while True:
            position = _next_marker(view, position)
            marker = view[position]
            position += 1
            if marker in _STANDALONE:
                continue
            (length,) = struct.unpack_from(">H", view, position)
            body = view[position + 2 : position + length]
            if marker in _FRAMES:
                frame = _parse_frame(body, marker)
            metadata |= marker == 0xE1
            profile |= marker == 0xE2 and bytes(body[:11]) == b"ICC_PROFILE"
            if marker == 0xDD:
                restarts = any(body[:2])
            if marker == 0xDA:
                return None if frame is None else Header(frame, position - 2, metadata, profile, restarts, body[0])
            if marker == 0xD9 or length < 2:  # end of image before any scan
                return None
            position += length
    except (struct.error, IndexError):
        return None


def index_obstacle(data: Data) -> str | None:
    """Why a JPEG has no random-access index, in a word or two; None where its header tells of no reason."""
    header = read_header(data)
    if header is None:
        return "damaged"
    frame = header.frame
    obstacles = (
        ("arithmetic code", frame.process > 0xC8),
        ("progressive", frame.process == PROGRESSIVE),
        ("unusual process", frame.process not in (BASELINE, EXTENDED)),
        (f"{frame.precision} bits", frame.precision != 8),
        ("CMYK", len(frame.factors) == 4),
        ("several scans", header.scan_components != len(frame.factors)),
        ("restart markers", header.restarts),
        ("unusual sub-sampling", not frame.is_common),
    )
    return next((name for name, applies in obstacles if applies), None)


def _next_marker(view: memoryview, position: int) -> int:
    """Index of the marker's second byte; fill bytes before it are skipped."""
    if view[position] != 0xFF:
        raise IndexError("no marker here")
    while view[position] == 0xFF:
        position += 1
    return position


def _parse_frame(body: memoryview, process: int) -> Frame:
    precision, height, width, count = struct.unpack_from(">BHHB", body)
    factors = tuple((body[7 + 3 * index] >> 4, body[7 + 3 * index] & 15) for index in range(count))
    return Frame(process, precision, width, height, factors)


def find_end(data: Data, scan_at: int) -> int:
    """Bytes up to and including the end marker of the stream whose first scan starts at `scan_at`.

    Inside of entropy code a marker's 0xFF is never followed by what looks like an end marker, so the first one counts.
    """
    at = bytes(data).find(b"\xff\xd9", scan_at)
    return memoryview(data).nbytes if at < 0 else at + 2
