"""Finds the segments of a JPEG stream (ITU-T T.81, annex B), those behind the first scan included."""

from dataclasses import dataclass

SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
DHT, DQT, DRI, SOS, DNL, EOI, APP1 = 0xC4, 0xDB, 0xDD, 0xDA, 0xDC, 0xD9, 0xE1
_ALONE = frozenset({0x01, *range(0xD0, 0xDA)})  # markers without a length


@dataclass(frozen=True)
class Segment:
    """A marker segment: bytes ``[start, stop)`` of the stream, marker included; its body begins behind the length."""

    marker: int
    start: int
    stop: int

    @property
    def body(self) -> int:
        return self.start + 4


def find_segments(stream: bytes) -> list[Segment]:
    """All segments that have a length, in order, as far as they fit the stream."""
    found: list[Segment] = []
    at = stream.find(b"\xff", 2)
    while 0 <= at < len(stream) - 3:
        marker = stream[at + 1]
        length = int.from_bytes(stream[at + 2 : at + 4], "big")
        if marker in (0x00, 0xFF) or marker in _ALONE:
            at = stream.find(b"\xff", at + (1 if marker == 0xFF else 2))
            continue
        if length < 2 or at + 2 + length > len(stream):
            break
        found.append(Segment(marker, at, at + 2 + length))
        at = stream.find(b"\xff", at + 2 + length)
    return found
