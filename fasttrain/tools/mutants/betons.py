"""Sound `.beton` files, and what is done to their own bytes: header, descriptors, records, trailer and table."""

import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from fasttrain.beton_build import format as fmt
from fasttrain.beton_build.trailer import FOOTER, SECTION, checksum
from fasttrain.beton_build.values import EncodedImage, Value
from fasttrain.beton_build.writer import BetonWriter
from fasttrain.kernels.indexed import index_jpeg
from fasttrain.kernels.jpeg_markers import read_header
from fasttrain.tools.mutants.damage import below
from fasttrain.tools.mutants.streams import picture, stream

_MANY = (
    *fmt.IMAGE_AND_LABEL,
    fmt.FieldSpec("weight", fmt.FLOAT_FIELD),
    fmt.FieldSpec("note", fmt.BYTES_FIELD),
    fmt.FieldSpec("facts", fmt.JSON_FIELD),
    fmt.array_field("mask", "<f4", (3, 4)),
    fmt.FieldSpec("second", fmt.IMAGE_FIELD),
)
_PICTURES = ("4:2:0", "raw", "progressive 4:2:0", "raw", "grey", "CMYK", "raw", "restarts each MCU")
_NUMBERS = (0, 1, 2, 3, 255, 1 << 16, 1 << 21, 1 << 31, (1 << 32) - 1, 1 << 40, 1 << 62, 1 << 63, (1 << 64) - 1)


@dataclass(frozen=True)
class Layout:
    """Byte ranges of a file's parts; the trailer's are absent from files that FFCV would have written."""

    parts: dict[str, tuple[int, int]]

    @classmethod
    def of(cls, data: bytes) -> "Layout":
        """The parts of a sound file."""
        header = np.frombuffer(data, fmt.HEADER, 1)[0]
        metadata_at = fmt.metadata_offset(int(header["num_fields"]))
        table_at = int(header["alloc_table_ptr"])
        fields = fmt.unpack_fields(data[fmt.HEADER.itemsize : metadata_at], int(header["num_fields"]))
        metadata_stop = metadata_at + int(header["num_samples"]) * fmt.metadata_dtype(fields).itemsize
        table = np.frombuffer(data[table_at:], fmt.ALLOC)
        regions = (int(table["ptr"].min()), int((table["ptr"] + table["size"]).max()))
        parts = {
            "header": (0, fmt.HEADER.itemsize),
            "descriptors": (fmt.HEADER.itemsize, metadata_at),
            "metadata": (metadata_at, metadata_stop),
            "images": regions,
            "table": (table_at, len(data)),
        }
        footer = np.frombuffer(data, FOOTER, 1, table_at - FOOTER.itemsize)[0]
        start, length = int(footer["offset"]), int(footer["length"])
        if length:
            sections = np.frombuffer(data, SECTION, length // SECTION.itemsize, start)
            stop = int((sections["offset"] + sections["length"]).max())
            parts["directory"] = (start, start + length)
            parts["sections"] = (start + length, stop)
            parts["footer"] = (table_at - FOOTER.itemsize, table_at)
            sizes = [section for section in sections if bytes(section["name"]).rstrip(b"\0") == b"index_sizes"]
            if sizes:  # that of the first image stands for all
                size = int(np.frombuffer(data, "<u8", 1, int(sizes[0]["offset"]))[0])
                first = fmt.index_place(int(table["ptr"][0]), int(table["size"][0]))
                parts["index"] = (first, first + size)
        return cls(parts)


@cache
def sound(name: str) -> bytes:
    """The file `name` of `NAMES`: 8 images, JPEG and raw: alone, with fields of every type, as FFCV writes them, with
    random-access indices where the native extension was built."""
    fields = _MANY if name == "fields" else fmt.IMAGE_AND_LABEL
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sound.beton"
        with BetonWriter(path, len(_PICTURES), fields, class_names=["a", "b"], page_size=fmt.MIN_PAGE_SIZE) as writer:
            for row, kind in enumerate(_PICTURES):
                writer.add(f"sample {row}", _values(row, kind, name == "indexed")[: len(fields)])
        data = path.read_bytes()
    return _as_ffcv(data) if name == "ffcv" else data


NAMES = ("plain", "fields", "ffcv", "indexed")


def _values(row: int, kind: str, indexed: bool) -> list[Value]:
    pixels = np.asarray(picture(20 + row, 30 - row, row))
    raw = EncodedImage(pixels.tobytes(), fmt.MODE_RAW, 20 + row, 30 - row)
    if kind == "raw":
        image = raw
    else:
        data = stream(kind)
        index = index_jpeg(data) if indexed else None
        image = EncodedImage(data, fmt.MODE_JPG, *jpeg_size(data), b"" if index is None else index.tobytes())
    mask = np.arange(12, dtype="<f4").reshape(3, 4)
    return [image, row % 2, row / 3, b"note %d" % row, {"row": row}, mask, raw]


def jpeg_size(data: bytes) -> tuple[int, int]:
    """Width and height that a stream's header states, (0, 0) when it cannot be read."""
    header = read_header(data)
    return (0, 0) if header is None else (header.frame.width, header.frame.height)


def _as_ffcv(data: bytes) -> bytes:
    """The same without the trailer, the table in another order."""
    header = np.frombuffer(data, fmt.HEADER, 1).copy()
    table_at = int(header["alloc_table_ptr"][0])
    footer = np.frombuffer(data, FOOTER, 1, table_at - FOOTER.itemsize)[0]
    pages_end = int(footer["offset"])
    header["alloc_table_ptr"] = pages_end
    table = np.frombuffer(data[table_at:], fmt.ALLOC)[::-1]
    return header.tobytes() + data[fmt.HEADER.itemsize : pages_end] + table.tobytes()


# --- changes ----------------------------------------------------------------------------------------------------------


def _number_in(part: str, start: int, stop: int, generator: np.random.Generator) -> tuple[int, int]:
    """Offset and width of one of the numbers that a part is made of, or of any bytes."""
    if part == "header":
        place = below(generator, 5)
        return fmt.HEADER.fields[fmt.HEADER.names[place]][1], (2, 2, 4, 8, 8)[place]  # type: ignore[index]
    if part in ("table", "sections"):
        return start + 8 * below(generator, (stop - start) // 8), 8
    if part == "directory":
        record = start + SECTION.itemsize * below(generator, (stop - start) // SECTION.itemsize)
        return record + 16 + 8 * below(generator, 3), 8
    if part == "footer":
        return start + 16 + 8 * below(generator, 3), 8
    width = (1, 2, 4, 8)[below(generator, 4)]
    return start + below(generator, stop - start - width), width


def _change(data: bytearray, layout: Layout, generator: np.random.Generator) -> str:
    parts = list(layout.parts)
    part = parts[below(generator, len(parts))]
    start, stop = layout.parts[part]
    kind = ("bits", "bytes", "number", "number", "number", "swap")[below(generator, 6)]
    if kind == "bits":
        for _ in range(1 + below(generator, 4)):
            data[start + below(generator, stop - start)] ^= 1 << below(generator, 8)
    elif kind == "bytes":
        at = start + below(generator, stop - start)
        length = min(1 + below(generator, 40), stop - at)
        data[at : at + length] = generator.bytes(length)
    elif kind == "number":
        at, width = _number_in(part, start, stop, generator)
        old = int.from_bytes(data[at : at + width], "little")
        near = (old - 1, old + 1, old + 24, old - 64, old + 64, old * 2, len(data) - old)
        values = near if generator.random() < 0.5 else _NUMBERS
        data[at : at + width] = (values[below(generator, len(values))] % (1 << 8 * width)).to_bytes(width, "little")
    else:
        length = (8, 13, 24, 40)[below(generator, 4)]
        one, other = (start + below(generator, stop - start - length) for _ in range(2))
        if abs(one - other) >= length and max(one, other) + length <= stop:
            data[one : one + length], data[other : other + length] = (
                data[other : other + length],
                data[one : one + length],
            )
    return f"{part}: {kind}"


def _shift(data: bytearray, layout: Layout, generator: np.random.Generator) -> str:
    """Everything behind some place moves: bytes cut off, taken out or put in, mostly at the edge of a part."""
    part = list(layout.parts)[below(generator, len(layout.parts))]
    start, stop = layout.parts[part]
    at = start if generator.random() < 0.5 else start + below(generator, stop - start)
    length = (1, 8, 24, 64, 24 * 8, fmt.MIN_PAGE_SIZE)[below(generator, 6)]
    kind = ("cut off", "taken out", "put in")[below(generator, 3)]
    if kind == "cut off":
        del data[at if generator.random() < 0.5 else max(len(data) - length, 0) :]
    elif kind == "taken out":
        del data[at : at + length]
    else:
        data[at:at] = bytes(length) if generator.random() < 0.5 else bytes(data[at : at + length])
    return f"{part}: {kind}"


def _seal(data: bytearray, layout: Layout) -> None:
    """Make all checksums hold again, so that the damage gets past them."""
    directory, stop = layout.parts["directory"]
    table_at = layout.parts["table"][0]
    head = checksum(bytes(data[: layout.parts["metadata"][1]]))
    digests = np.array([head, checksum(bytes(data[table_at:]))], "<u8").tobytes()
    for at in range(directory, stop, SECTION.itemsize):
        record = np.frombuffer(bytes(data[at : at + SECTION.itemsize]), SECTION)[0]
        start, length = int(record["offset"]), int(record["length"])
        if record["name"].tobytes().rstrip(b"\0") == b"digests" and start + len(digests) <= len(data):
            data[start : start + len(digests)] = digests
        if start + length <= len(data):
            sealed = checksum(bytes(data[start : start + length]))
            data[at + SECTION.itemsize - 8 : at + SECTION.itemsize] = sealed.to_bytes(8, "little")
    footer_stop = layout.parts["footer"][1]
    data[footer_stop - 8 : footer_stop] = checksum(bytes(data[directory:stop])).to_bytes(8, "little")


def damaged(name: str, generator: np.random.Generator) -> tuple[bytes, tuple[str, ...], bool]:
    """The file `name` with one to three changes; their names; whether its checksums were made to hold again."""
    data = bytearray(sound(name))
    layout = Layout.of(bytes(data))
    if generator.random() < 0.2:
        shifted = _shift(data, layout, generator)
        return bytes(data), (shifted,), False
    names = tuple(_change(data, layout, generator) for _ in range((1, 1, 2, 3)[below(generator, 4)]))
    sealed = "footer" in layout.parts and generator.random() < 0.5
    if sealed:
        _seal(data, layout)
    return bytes(data), names, sealed
