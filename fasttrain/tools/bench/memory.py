"""Memory that a process and all its descendants take, as Linux accounts for it."""

import os
import threading
from pathlib import Path

COUNTED = ("Pss_Anon:", "Pss_Shmem:")  # pages of files are left out: they are the page cache's


def descendants(process: int) -> list[int]:
    """Ids of the children of a process, their children, and so on; empty where /proc does not tell."""
    found: list[int] = []
    waiting = [process]
    while waiting:
        for listing in Path(f"/proc/{waiting.pop()}/task").glob("*/children"):
            try:
                children = [int(number) for number in listing.read_text().split()]
            except OSError:  # the thread has ended
                continue
            found += children
            waiting += children
    return found


def tree_bytes(process: int) -> int | None:
    """Anonymous and shared memory of a process and its descendants, each shared page counted once (PSS).

    Returns:
        bytes; None where the system does not tell.
    """
    totals = [_own_bytes(member) for member in (process, *descendants(process))]
    return None if totals[0] is None else sum(total or 0 for total in totals)


def _own_bytes(process: int) -> int | None:
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:
        return None
    found = [int(line.split()[1]) * 1024 for line in lines if line.startswith(COUNTED)]
    return sum(found) if found else None


class PeakMemory:
    """Samples this process and its descendants in a thread, from its making on.

    Half a second between samples: reading the figures of a gigabyte takes the system about 10 ms.
    """

    def __init__(self, interval_s: float = 0.5) -> None:
        self._before = self._peak = tree_bytes(os.getpid())
        self._interval_s = interval_s
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._end.wait(self._interval_s):
            self._sample()

    def _sample(self) -> None:
        now = tree_bytes(os.getpid())
        if now is not None and self._peak is not None:
            self._peak = max(self._peak, now)

    def stop(self) -> int | None:
        """End the sampling: bytes by which the peak was above the beginning."""
        self._end.set()
        self._thread.join()
        self._sample()
        return None if self._before is None or self._peak is None else self._peak - self._before
