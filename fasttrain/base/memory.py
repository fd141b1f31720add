"""What becomes of memory that was freed. No torch."""

import ctypes
import os
import sys

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # of mallopt(3)
_NEVER = -1
_USERS_OWN = ("MALLOC_MMAP_", "MALLOC_TRIM_", "MALLOC_TOP_PAD_")


def keep_freed_memory() -> bool:
    """Have the C library keep what is freed for the next to ask, from now to the process's end.

    By itself glibc gives every block beyond 32 MiB back to the system at once, and the activations of a step are
    such blocks: the kernel then finds and zeroes all of their pages anew in each step, which takes as long as a good
    part of the computing. The process stays as large as it was at its largest.

    Returns:
        Whether it is so: not with another C library, nor where the environment has settings of its own for glibc's
        memory (``MALLOC_MMAP_THRESHOLD_`` and others, ``GLIBC_TUNABLES``).
    """
    if sys.platform != "linux" or _user_decides():
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    return mallopt is not None and bool(mallopt(_MMAP_MAX, 0)) and bool(mallopt(_TRIM_THRESHOLD, _NEVER))


def _user_decides() -> bool:
    return "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", "") or any(
        name.startswith(_USERS_OWN) for name in os.environ
    )
