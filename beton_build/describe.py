"""What `fasttrain info` tells about a `.beton`."""

from collections import Counter
from typing import Any

import numpy as np

from fasttrain.base.errors import ImageError
from fasttrain.beton_build.format import MODE_JPG, MODE_RAW
from fasttrain.beton_build.reader import BetonReader
from fasttrain.kernels.jpeg_markers import index_obstacle

MAX_LOOKED_INTO = 10_000  # streams that are looked into for why they have no index
_TOLD_ELSEWHERE = {"class_names", "original_kinds", "masks"}


def describe(reader: BetonReader) -> dict[str, Any]:
    """Samples, classes, fields, bytes, complete, indexed, and how the file was built."""
    labels = reader.labels
    known = labels[labels >= 0]
    return {
        "samples": reader.num_samples,
        "classes": reader.class_names or [],
        "num_classes": len(reader.class_names) if reader.class_names else int(known.max(initial=-1)) + 1,
        "labelled": int(known.size),
        "fields": [{"name": field.name, "type": field.type_name} for field in reader.fields],
        "bytes": reader.num_bytes,
        **_images(reader),
        "original_kinds": _original_kinds(reader),
        "page_size": reader.page_size,
        "complete": True,  # an incomplete file cannot be opened
        "indexed": reader.indexed,
        "index": _index(reader),
        "masks": _masks(reader),
        "has_ids": reader.has_trailer,
        "fingerprint": reader.fingerprint,
        "build": {key: value for key, value in reader.build_info.items() if key not in _TOLD_ELSEWHERE},
    }


def _images(reader: BetonReader) -> dict[str, Any]:
    if not reader.has_images:
        return {"image_bytes": 0, "jpeg": 0, "raw": 0, "width": {}, "height": {}}
    return {
        "image_bytes": int(reader.sizes.sum()),
        "jpeg": int(np.count_nonzero(reader.modes == MODE_JPG)),
        "raw": int(np.count_nonzero(reader.modes == MODE_RAW)),
        "width": _spread(reader.widths),
        "height": _spread(reader.heights),
    }


def _index(reader: BetonReader) -> dict[str, Any]:
    """How many images have a random-access index, why the others have none, and what it takes."""
    if not reader.has_images:
        return {"images": 0, "not": {}, "bytes": 0, "share": 0.0, "where": None}
    size, of = int(reader.index_sizes.sum()), int(reader.sizes.sum())
    return {
        "images": reader.num_indexed,
        "not": not_indexed(reader),
        "bytes": size,
        "share": round(size / of, 6) if of else 0.0,
        "where": reader.index_where,
    }


def _masks(reader: BetonReader) -> dict[str, Any] | None:
    """What the masks hold: share of all pixels, and number of images, of each class and of what counts for nothing."""
    pixels = reader.mask_pixels
    if reader.masks is None or pixels is None:
        return None
    names = reader.masks.classes or tuple(map(str, range(pixels.shape[1] - 1)))
    shares, images = pixels.sum(0, dtype=np.int64) / max(int(pixels.sum(dtype=np.int64)), 1), (pixels > 0).sum(0)
    return {
        "classes": list(reader.masks.classes or []),
        "ignore": reader.masks.ignore,
        "palette": None if reader.masks.palette is None else [list(colour) for colour in reader.masks.palette],
        "share": {name: round(share, 6) for name, share in zip((*names, "ignored"), shares.tolist(), strict=True)},
        "images": dict(zip((*names, "ignored"), images.tolist(), strict=True)),
    }


def not_indexed(reader: BetonReader) -> dict[str, int]:
    """How many images have no index, by the reason: "raw", "progressive", "restart markers", … Streams are looked into
    where that takes no time; otherwise, and where no image has an index, all others are "jpeg"."""
    raw = int(np.count_nonzero(reader.modes == MODE_RAW))
    rows = np.flatnonzero((reader.modes == MODE_JPG) & (reader.index_sizes == 0))
    counts = Counter({"raw": raw} if raw else {})
    if not reader.indexed or len(rows) > MAX_LOOKED_INTO:
        counts.update({"jpeg": len(rows)} if len(rows) else {})
        return dict(counts)
    counts.update(_obstacle(reader, row) for row in rows.tolist())
    return dict(counts)


def _obstacle(reader: BetonReader, row: int) -> str:
    try:
        return index_obstacle(reader.image_bytes(row)) or "other"
    except ImageError:
        return "damaged"


def _original_kinds(reader: BetonReader) -> dict[str, int]:
    """How many images were of each format and mode before they were converted."""
    kinds, originals = reader.build_info.get("original_kinds"), reader.originals
    if originals is None or not isinstance(kinds, list):
        return {}
    counts = np.bincount(originals["kind"], minlength=len(kinds))
    return {str(kind): int(count) for kind, count in zip(kinds, counts.tolist(), strict=False)}


def _spread(values: np.ndarray) -> dict[str, int]:
    """Least, median and largest of `values` ({} when there are none)."""
    if not values.size:
        return {}
    return {"min": int(values.min()), "median": int(np.median(values)), "max": int(values.max())}
