"""Where the parts of a `.beton` file lie, each offset and size checked before it is used."""

import mmap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fasttrain.base.errors import BetonError
from fasttrain.beton_build import format as fmt
from fasttrain.beton_build.trailer import FOOTER, Trailer, checksum, find_trailer

CHUNK = 1 << 18  # rows that are checked at a time, so that opening takes no memory for each sample
AGAIN = "build the file again or fetch it again"


@dataclass(frozen=True)
class Parts:
    """The parts of an opened file, as views into it."""

    num_samples: int
    page_size: int
    fields: tuple[fmt.FieldSpec, ...]
    head: memoryview  # header, descriptors and metadata
    metadata: np.ndarray  # (N,) records of format.metadata_dtype
    alloc: np.ndarray  # (regions,) records of format.ALLOC
    data_start: int  # regions lie in [data_start, data_stop)
    data_stop: int
    trailer: Trailer | None
    info: dict[str, Any]  # the trailer's JSON section


def map_file(path: Path) -> mmap.mmap:
    """Map a file read-only.

    Raises:
        BetonError: there is no such file, or it is too short for a `.beton`.
    """
    try:
        with path.open("rb") as file:
            if file.seek(0, 2) < fmt.HEADER.itemsize:
                raise BetonError(f"{path} is not a .beton file: it is shorter than the header")
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError:
        raise BetonError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise BetonError(f"{path} is a folder, not a .beton file") from None


def parse(data: memoryview, name: str) -> Parts:
    """Find and check the parts of the file `data`; `name` is for messages.

    Raises:
        BetonError: the file is not a `.beton`, damaged, cut short, never completed, or of another version.
    """
    header = _header(data, name)
    num_fields, num_samples = int(header["num_fields"]), int(header["num_samples"])
    page_size, table_at = int(header["page_size"]), int(header["alloc_table_ptr"])
    metadata_at = fmt.metadata_offset(num_fields)
    if table_at > data.nbytes:
        raise BetonError(f"{name} is cut short: it has {data.nbytes} bytes, its table starts at {table_at}; {AGAIN}")
    if table_at < metadata_at or (data.nbytes - table_at) % fmt.ALLOC.itemsize:
        raise BetonError(f"{name} is damaged or cut short: its allocation table does not fit the file; {AGAIN}")
    fields = fmt.unpack_fields(data[fmt.HEADER.itemsize : metadata_at], num_fields)
    try:
        record = fmt.metadata_dtype(fields)
    except BetonError as error:
        raise BetonError(f"{name} cannot be read: {error}") from None
    head_stop = metadata_at + num_samples * record.itemsize
    if head_stop > table_at:
        raise BetonError(f"{name} is damaged: {num_samples} samples do not fit before its allocation table; {AGAIN}")
    metadata = np.frombuffer(data, record, num_samples, metadata_at)
    num_regions = (data.nbytes - table_at) // fmt.ALLOC.itemsize
    alloc = np.frombuffer(data[table_at:], fmt.ALLOC) if num_regions else np.zeros(0, fmt.ALLOC)
    trailer = find_trailer(data, name, head_stop, table_at)
    if trailer is None:
        _refuse_lost_trailer(data, name, alloc, head_stop, table_at, page_size)
    info = _checked_info(trailer, name, num_samples, num_regions) if trailer else {}
    data_stop = trailer.start if trailer else table_at
    parts = Parts(
        num_samples, page_size, fields, data[:head_stop], metadata, alloc, head_stop, data_stop, trailer, info
    )
    if trailer:
        check_digests(parts, name, table=False)
    return parts


def _header(data: memoryview, name: str) -> np.void:
    header = np.frombuffer(data, fmt.HEADER, 1)[0]
    version, page_size = int(header["version"]), int(header["page_size"])
    plausible = fmt.is_page_size(page_size) and 0 < int(header["num_fields"]) < 4096
    if version != fmt.VERSION and plausible and 0 < version < 256:
        raise BetonError(f"{name} is a .beton file of version {version}; this program reads version {fmt.VERSION}")
    if version != fmt.VERSION or not plausible:
        raise BetonError(f"{name} is not a .beton file, or its header is damaged")
    if int(header["alloc_table_ptr"]) == 0:
        raise BetonError(f"{name} was never completed: its writer was interrupted; build the file again")
    return header


def _refuse_lost_trailer(
    data: memoryview, name: str, alloc: np.ndarray, head_stop: int, table_at: int, page_size: int
) -> None:
    """A last page that no region uses belongs to a trailer; without a readable footer it is damaged."""
    last_page = table_at - page_size
    footer = data[max(table_at - FOOTER.itemsize, head_stop) : table_at]
    if last_page < head_stop or not any(footer):
        return
    if not len(alloc) or int(alloc["ptr"].max()) < last_page:
        raise BetonError(f"{name} is damaged: the footer of its trailer cannot be read; {AGAIN}")


def _checked_info(trailer: Trailer, name: str, num_samples: int, num_regions: int) -> dict[str, Any]:
    info = trailer.header()
    names = info.get("class_names")
    named = names is None or (isinstance(names, list) and all(isinstance(entry, str) for entry in names))
    if not named:
        raise BetonError(f"{name} is damaged: the class names in its trailer are not a list of names")
    if info.get("complete") is not True:
        raise BetonError(f"{name} was never completed: its writer was interrupted; build the file again")
    if info.get("samples") != num_samples or info.get("regions") != num_regions:
        raise BetonError(f"{name} is damaged or cut short: header, table and trailer disagree on the samples; {AGAIN}")
    return info


def check_digests(parts: Parts, name: str, table: bool) -> None:
    """Compare the head, and the allocation table if asked for, with their checksums in the trailer.

    Raises:
        BetonError: a checksum does not hold.
    """
    assert parts.trailer is not None
    expected = parts.trailer.array("digests", 2)
    if checksum(parts.head) != int(expected[0]):
        raise BetonError(f"{name} is damaged: the checksum of its header and metadata does not hold; {AGAIN}")
    if table and checksum(parts.alloc.tobytes()) != int(expected[1]):
        raise BetonError(f"{name} is damaged: the checksum of its allocation table does not hold; {AGAIN}")


def sizes_from_table(alloc: np.ndarray, offsets: np.ndarray, name: str) -> np.ndarray:
    """The size of the region at each sample's offset, from an allocation table in any order.

    Args:
        alloc: (regions,) records of format.ALLOC.
        offsets: (N,) uint64, of one region a sample.

    Returns:
        (N,) uint64, bytes.

    Raises:
        BetonError: an offset is not in the table.
    """
    sizes = np.zeros(len(offsets), np.uint64)
    found = np.zeros(len(offsets), bool)
    for start in range(0, len(alloc), CHUNK):  # the table says which sample a region belongs to: no need to sort it
        part = alloc[start : start + CHUNK]
        part = part[part["sample_id"] < len(offsets)]
        rows = part["sample_id"]
        fits = offsets[rows] == part["ptr"]
        sizes[rows[fits]] = part["size"][fits]
        found[rows[fits]] = True
    if not found.all():
        row = int(np.argmin(found))
        raise BetonError(f"{name} is damaged or cut short: the image of row {row} is not in its table; {AGAIN}")
    return sizes


def check_regions(parts: Parts, images: np.ndarray, sizes: np.ndarray, name: str) -> None:
    """Every image's region lies inside the pages, and raw regions have the size of their pixels.

    Args:
        images: (N,) records of format.IMAGE.
        sizes: (N,) uint64, bytes of the regions.

    Raises:
        BetonError: one does not; it names the row.
    """
    for start in range(0, len(images), CHUNK):
        wrong = region_faults(parts, images[start : start + CHUNK], sizes[start : start + CHUNK])
        if wrong is not None:
            raise BetonError(f"{name} is damaged: row {start + wrong[0]} of {len(images)}: {wrong[1]}; {AGAIN}")


def refuse_filled_pages(parts: Parts, data: memoryview, name: str) -> None:
    """Pages behind the last region hold a trailer, or nothing: one whose footer was cleared is not to be overlooked.

    Looks through the whole table, so it is for files whose table has to be looked through anyway.

    Raises:
        BetonError: there is something in such a page of a file without a trailer.
    """
    first, stop = np.uint64(parts.data_start), np.uint64(parts.data_stop)
    used = 0
    for start in range(0, len(parts.alloc), CHUNK):
        part = parts.alloc[start : start + CHUNK]
        sound = (part["ptr"] >= first) & (part["ptr"] < stop) & (part["size"] <= stop - np.minimum(part["ptr"], stop))
        used = max(used, int((part["ptr"] + part["size"])[sound].max(initial=0)))
    unused = fmt.round_up(max(used, parts.data_start), parts.page_size)
    if np.frombuffer(data[min(unused, parts.data_stop) : parts.data_stop], np.uint8).any():
        raise BetonError(f"{name} is damaged: the footer of its trailer is lost; {AGAIN}")


def region_faults(parts: Parts, images: np.ndarray, sizes: np.ndarray) -> tuple[int, str] | None:
    """The first of `images` ((n,) records of format.IMAGE) that cannot be right, and why; None when all can."""
    start, stop = np.uint64(parts.data_start), np.uint64(parts.data_stop)
    offsets, modes = images["data_ptr"], images["mode"]
    widths, heights = images["width"].astype(np.uint64), images["height"].astype(np.uint64)
    inside = (offsets >= start) & (offsets <= stop) & (sizes <= stop - np.minimum(offsets, stop)) & (sizes > 0)
    checks = (
        (~inside, "its image lies outside of the file's pages"),
        (modes > fmt.MODE_RAW, "its image mode is neither JPEG nor raw"),
        ((widths == 0) | (heights == 0), "its image has no pixels"),
        (
            (modes == fmt.MODE_RAW) & (sizes != widths * heights * np.uint64(3)),
            "its raw image has another size than its width and height say",
        ),
    )
    for wrong, what in checks:
        if wrong.any():
            return int(np.argmax(wrong)), what
    return None
