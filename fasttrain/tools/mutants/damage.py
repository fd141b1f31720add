"""What is done to a JPEG stream: blind damage to any bytes, and edits of what its segments say."""

from collections.abc import Callable

import numpy as np

from fasttrain.tools.mutants import segments as jpeg
from fasttrain.tools.mutants.segments import Segment, find_segments

Change = Callable[[bytearray, np.random.Generator], None]
END = b"\xff\xd9"
_SIDES = (0, 1, 2, 7, 8, 9, 16, 17, 255, 256, 4096, 32767, 32768, 65500, 65535)


def below(generator: np.random.Generator, stop: int) -> int:
    """A number from 0 to `stop` - 1 (0 when there is none)."""
    return int(generator.integers(max(stop, 1)))


def span(data: bytearray, generator: np.random.Generator, longest: int = 40) -> slice:
    """Some bytes, mostly few."""
    start = below(generator, len(data))
    return slice(start, start + 1 + below(generator, 1 + below(generator, longest)))


# --- blind ------------------------------------------------------------------------------------------------------------


def bit_flips(data: bytearray, generator: np.random.Generator) -> None:
    for _ in range(1 + below(generator, 8)):
        data[below(generator, len(data))] ^= 1 << below(generator, 8)


def byte_run(data: bytearray, generator: np.random.Generator) -> None:
    where = span(data, generator)
    length = len(data[where])
    kinds = (generator.bytes(length), bytes(length), b"\xff" * length)
    data[where] = kinds[below(generator, 3)]


def truncation(data: bytearray, generator: np.random.Generator) -> None:
    """Cut off, half of the time with an end marker put behind: such a stream looks whole from both ends."""
    del data[below(generator, len(data)) :]
    if generator.random() < 0.5:
        data += END


def insertion(data: bytearray, generator: np.random.Generator) -> None:
    where = span(data, generator)
    at = below(generator, len(data))
    data[at:at] = data[where] if generator.random() < 0.5 else generator.bytes(1 + below(generator, 20))


def deletion(data: bytearray, generator: np.random.Generator) -> None:
    del data[span(data, generator, 200)]


def swapped_blocks(data: bytearray, generator: np.random.Generator) -> None:
    length = 1 + below(generator, max(len(data) // 4, 1))
    first, second = sorted(below(generator, len(data) - length + 1) for _ in range(2))
    if first + length <= second:
        data[first : first + length], data[second : second + length] = (
            data[second : second + length],
            data[first : first + length],
        )


def stray_marker(data: bytearray, generator: np.random.Generator) -> None:
    at = below(generator, len(data))
    data[at : at + 2] = bytes([0xFF, 0xC0 + below(generator, 0x40)])


def tail(data: bytearray, generator: np.random.Generator) -> None:
    """The end marker taken away, doubled, or followed by padding or rubbish."""
    choices = (b"", END * 2, bytes(300), END + bytes(300), END + generator.bytes(300), END + bytes(5000) + END)
    if data.endswith(END):
        del data[-2:]
    data += choices[below(generator, len(choices))]


# --- by segments ------------------------------------------------------------------------------------------------------


def _chosen(data: bytearray, generator: np.random.Generator, markers: frozenset[int] | None) -> Segment | None:
    found = [s for s in find_segments(bytes(data)) if markers is None or s.marker in markers]
    return found[below(generator, len(found))] if found else None


def _on(*markers: int) -> Callable[[Callable[[bytearray, Segment, np.random.Generator], None]], Change]:
    """Makes a change of an edit of a segment of one of `markers` (any if none is named), if the stream has one."""

    def decorate(edit: Callable[[bytearray, Segment, np.random.Generator], None]) -> Change:
        def change(data: bytearray, generator: np.random.Generator) -> None:
            segment = _chosen(data, generator, frozenset(markers) or None)
            if segment is not None:
                edit(data, segment, generator)

        return change

    return decorate


def _put(data: bytearray, at: int, value: int, size: int = 1) -> None:
    data[at : at + size] = (value % (1 << 8 * size)).to_bytes(size, "big")


@_on()
def segment_length(data: bytearray, segment: Segment, generator: np.random.Generator) -> None:
    length = segment.stop - segment.start - 2
    values = (0, 1, 2, 3, length - 1, length + 1, length + below(generator, 40), 0xFFFF, below(generator, 1 << 16))
    _put(data, segment.start + 2, values[below(generator, len(values))], 2)


@_on()
def segment_dropped(data: bytearray, segment: Segment, generator: np.random.Generator) -> None:
    del data[segment.start : segment.stop]


@_on()
def segment_moved(data: bytearray, segment: Segment, generator: np.random.Generator) -> None:
    """A copy of a segment before another one; mostly the original goes."""
    copy = bytes(data[segment.start : segment.stop])
    if generator.random() < 0.7:
        del data[segment.start : segment.stop]
    other = _chosen(data, generator, None)
    at = len(data) if other is None else other.start
    data[at:at] = copy


@_on(*jpeg.SOF)
def frame_size(data: bytearray, segment: Segment, generator: np.random.Generator) -> None:
    at = segment.body + 1 + 2 * below(generator, 2)  # height or width
    old = int.from_bytes(data[at : at + 2], "big")
    near = (old - 1, old + 1, old - 8, old + 8, old + 16, 2 * old, old // 2)
    values = near if generator.random() < 0.6 else _SIDES
    _put(data, at, values[below(generator, len(values))], 2)


@_on(*jpeg.SOF)
def frame_process(data: bytearray, segment: Segment, generator: np.random.Generator) -> None:
    """Another coding process, precision, or number of components."""
    place = below(generator, 3)
    if place == 0:
        _put(data, segment.start + 1, sorted(jpeg.SOF)[below(generator, len(jpeg.SOF))])
    elif place == 1:
        _put(data, segment.body, (0, 2, 7, 9, 12, 16, 255)[below(generator, 7)])
    else:
        _put(data, segment.body + 5, (0, 1, 2, 3, 4, 5, 10, 255)[below(generator, 8)])


@_on(*jpeg.SOF)
def frame_components(data: bytearray, segment: Segment, generator: np.random.Generator) -> None:
    """A component's number, sampling factors or quantisation table."""
    component = below(generator, max((segment.stop - segment.body - 6) // 3, 1))
    at = segment.body + 6 + 3 * component + (0, 1, 1, 1, 2)[below(generator, 5)]
    factors = (1 + below(generator, 4)) << 4 | 1 + below(generator, 4)
    _put(data, at, factors if generator.random() < 0.8 else below(generator, 256))


@_on(jpeg.DHT)
def huffman_table(data: bytearray, segment: Segment, generator: np.random.Generator) -> None:
    """A code count, a value, or the table's number; counts are shifted as well, so that their sum stays."""
    first = segment.body
    kind = below(generator, 4)
    if kind == 0:
        _put(data, first, below(generator, 256) if generator.random() < 0.3 else below(generator, 4) | 16)
    elif kind == 1:
        _put(data, first + 1 + below(generator, 16), below(generator, 256))
    elif kind == 2:
        one, other = (first + 1 + below(generator, 16) for _ in range(2))
        moved = min(data[one], 1 + below(generator, 3))
        _put(data, one, data[one] - moved)
        _put(data, other, data[other] + moved)
    else:
        _put(data, first + 17 + below(generator, segment.stop - first - 17), below(generator, 256))


@_on(jpeg.DQT)
def quantisation_table(data: bytearray, segment: Segment, generator: np.random.Generator) -> None:
    if generator.random() < 0.3:
        _put(data, segment.body, (0x01, 0x04, 0x10, 0x11, 0x20, 0xFF)[below(generator, 6)])
    else:
        where = segment.body + 1 + below(generator, segment.stop - segment.body - 1)
        _put(data, where, (0, 1, 255, below(generator, 256))[below(generator, 4)])


@_on(jpeg.SOS)
def scan_header(data: bytearray, segment: Segment, generator: np.random.Generator) -> None:
    """Number of components, their tables, spectral selection or successive approximation."""
    place = below(generator, segment.stop - segment.body)
    values = (0, 1, 2, 3, 4, 0x10, 0x11, 0x21, 63, 64, 255, below(generator, 256))
    _put(data, segment.body + place, values[below(generator, len(values))])


@_on(jpeg.SOS)
def entropy_code(data: bytearray, segment: Segment, generator: np.random.Generator) -> None:
    """Bits of a scan's code, its markers among them."""
    stop = data.find(b"\xff\xda", segment.stop)
    length = (len(data) if stop < 0 else stop) - segment.stop
    for _ in range(1 + below(generator, 4)):
        at = segment.stop + below(generator, length)
        if at < len(data):
            data[at] ^= 1 << below(generator, 8)


@_on(jpeg.SOS)
def scan_repeated(data: bytearray, segment: Segment, generator: np.random.Generator) -> None:
    """A scan again and again: few bytes each, and a pass over the image each."""
    stop = data.find(b"\xff", segment.stop)
    while 0 <= stop < len(data) - 1 and (data[stop + 1] == 0 or 0xD0 <= data[stop + 1] <= 0xD7):
        stop = data.find(b"\xff", stop + 2)
    scan = bytes(data[segment.start : len(data) if stop < 0 else stop])
    times = (1, 2, 5, 150)[below(generator, 4)]
    data[segment.start : segment.start] = scan * min(times, 1 + 60_000 // max(len(scan), 1))


@_on(jpeg.SOS)
def restart_interval(data: bytearray, segment: Segment, generator: np.random.Generator) -> None:
    value = (0, 1, 2, 7, 65535, below(generator, 1 << 16))[below(generator, 6)]
    data[segment.start : segment.start] = bytes([0xFF, jpeg.DRI, 0, 4]) + value.to_bytes(2, "big")


def restart_marker(data: bytearray, generator: np.random.Generator) -> None:
    """A restart marker renumbered, taken out, doubled or put where none belongs."""
    found = [at for at in range(len(data) - 1) if data[at] == 0xFF and 0xD0 <= data[at + 1] <= 0xD7]
    marker = bytes([0xFF, 0xD0 + below(generator, 8)])
    at = found[below(generator, len(found))] if found else below(generator, len(data))
    kind = below(generator, 3) if found else 2
    data[at : at + (2, 2, 0)[kind]] = (marker, b"", marker)[kind]


@_on(*jpeg.SOF)
def number_of_lines(data: bytearray, segment: Segment, generator: np.random.Generator) -> None:
    """A DNL segment behind the first scan, the height left to it or contradicting it."""
    height = bytes(data[segment.body + 1 : segment.body + 3])
    if generator.random() < 0.7:
        _put(data, segment.body + 1, 0, 2)
    if generator.random() < 0.3:
        height = generator.bytes(2)
    at = data.find(END) if generator.random() < 0.7 else below(generator, len(data))
    data[max(at, 0) : max(at, 0)] = bytes([0xFF, jpeg.DNL, 0, 4]) + height


@_on(jpeg.APP1)
def exif(data: bytearray, segment: Segment, generator: np.random.Generator) -> None:
    """Numbers of the EXIF block: offsets, counts, types."""
    for _ in range(1 + below(generator, 3)):
        at = segment.body + 6 + below(generator, segment.stop - segment.body - 6)
        value = (0, 1, 0x7F, 0x80, 0xFF, below(generator, 256))[below(generator, 6)]
        if at < len(data):
            data[at] = value


@_on()
def application_segment(data: bytearray, segment: Segment, generator: np.random.Generator) -> None:
    """A further segment: EXIF that ends early, XMP with an orientation, Adobe's colour transform, an odd profile."""
    bodies = (
        b"Exif\0\0",
        b"Exif\0\0II*\0" + generator.bytes(4),
        b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + generator.bytes(below(generator, 30)),
        b"http://ns.adobe.com/xap/1.0/\0 tiff:Orientation=6",
        b"Adobe\0\x64\0\0\0\0" + bytes([below(generator, 4)]),
        b"ICC_PROFILE\0\x01\x05" + generator.bytes(9),
    )
    number = below(generator, len(bodies))
    marker = (0xE1, 0xE1, 0xE1, 0xE1, 0xEE, 0xE2)[number]
    body = bodies[number]
    data[segment.start : segment.start] = bytes([0xFF, marker]) + (len(body) + 2).to_bytes(2, "big") + body


CHANGES: dict[str, Change] = {
    change.replace("_", " "): globals()[change]
    for change in (
        "bit_flips", "byte_run", "truncation", "insertion", "deletion", "swapped_blocks", "stray_marker", "tail",
        "segment_length", "segment_dropped", "segment_moved", "frame_size", "frame_process", "frame_components",
        "huffman_table", "quantisation_table", "scan_header", "entropy_code", "scan_repeated", "restart_interval",
        "restart_marker", "number_of_lines", "exif", "application_segment",
    )
}  # fmt: skip


def damaged(stream: bytes, generator: np.random.Generator) -> tuple[bytes, tuple[str, ...]]:
    """`stream` with one to three changes, and their names."""
    data = bytearray(stream)
    names: list[str] = []
    for _ in range((1, 1, 1, 2, 2, 3)[below(generator, 6)]):
        if len(data) < 4:
            break
        name = list(CHANGES)[below(generator, len(CHANGES))]
        CHANGES[name](data, generator)
        names.append(name)
    return bytes(data), tuple(names)
