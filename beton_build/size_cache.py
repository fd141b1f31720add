"""Keeps the image sizes of large files that FFCV wrote, so that only the first opening has to look them up.

FFCV's allocation table is in the order its workers wrote. A file of ours holds the sizes itself and needs no cache. The
cache lies in ``$XDG_CACHE_HOME/fasttrain/sizes`` (``~/.cache/fasttrain/sizes``), one file a data set, bound to the
data set's path, length and time of change. It may be removed at any time.
"""

import os
from contextlib import suppress
from pathlib import Path

import numpy as np
import xxhash

from fasttrain.base.atomic import atomic_path

MIN_SAMPLES = 100_000  # below it, looking up takes no time


def load_sizes(path: Path, count: int) -> np.ndarray | None:
    """The cached sizes ((count,) uint64, mapped from the disk) of the file `path`; None when there are none."""
    if count < MIN_SAMPLES:
        return None
    try:
        sizes = np.load(_place(path), mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return sizes if sizes.shape == (count,) and sizes.dtype == np.uint64 else None


def store_sizes(path: Path, sizes: np.ndarray) -> None:
    """Remember the sizes of the file `path`. A cache that cannot be written is done without."""
    if len(sizes) < MIN_SAMPLES:
        return
    with suppress(OSError), atomic_path(_place(path)) as part, part.open("wb") as file:
        np.save(file, sizes)


def _place(path: Path) -> Path:
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    status = path.stat()
    bound_to = f"{path.resolve()}\0{status.st_size}\0{status.st_mtime_ns}"
    return root / "fasttrain" / "sizes" / f"{xxhash.xxh3_128_hexdigest(os.fsencode(bound_to))}.npy"
