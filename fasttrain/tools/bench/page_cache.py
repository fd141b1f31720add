"""The system's page cache: what of a file lies in it, and how to get it out."""

import ctypes
import mmap
import os
import time
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import cast

import numpy as np

from fasttrain.base.errors import ConfigError

NOT_HERE = "cold files need Linux, whose page cache can be emptied of a file and asked for it; measure from warm ones"
TRIES = 5
PAUSE_S = 0.2  # between tries: pages on a core's list of new ones are only dropped once they have left it


def drop(paths: Iterable[Path]) -> None:
    """Get files out of the page cache, and make sure that they are.

    Links are left alone. What the device, or the host of a virtual machine, keeps in memory of its own is out of reach.

    Raises:
        ConfigError: something of a file stays, as on a file system that lies in memory, or this system is not Linux.
    """
    if not hasattr(os, "posix_fadvise"):
        raise ConfigError(NOT_HERE)
    for path in paths:
        if path.is_symlink() or not path.is_file():
            continue
        for attempt in range(TRIES):
            _ask_to_drop(path, flush=attempt > 0)
            left = resident_bytes(path)
            if not left:
                break
            time.sleep(PAUSE_S * attempt)
        else:
            raise ConfigError(
                f"{left:,} bytes of {path} stay in the page cache, so no run from cold files can be measured there; "
                "name a folder on a disk with --scratch, and let nothing else use it"
            )


def resident_bytes(path: Path) -> int:
    """Bytes of a file's pages that lie in the page cache (mincore(2)); asking brings none in."""
    size = path.stat().st_size
    if size == 0:
        return 0
    pages = np.zeros(-(-size // mmap.PAGESIZE), np.uint8)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        view = np.frombuffer(mapped, np.uint8)
        failed = _mincore()(view.ctypes.data, size, pages.ctypes.data)
        del view  # or the map could not be closed
    if failed:
        raise OSError(ctypes.get_errno(), f"mincore: {os.strerror(ctypes.get_errno())}", str(path))
    return int((pages & 1).sum()) * mmap.PAGESIZE


@cache
def _mincore() -> Callable[[int, int, int], int]:
    found = getattr(ctypes.CDLL(None, use_errno=True), "mincore", None)
    if found is None:
        raise ConfigError(NOT_HERE)
    found.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)
    return cast(Callable[[int, int, int], int], found)


def _ask_to_drop(path: Path, flush: bool) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        if flush:  # which takes milliseconds; but what has not been written to the disk yet cannot be dropped
            os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)
