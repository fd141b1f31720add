"""How a loader uses the memory that it may: which of decoded images, files, or a window of them stays there."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from fasttrain.base import process
from fasttrain.base.errors import LoaderError
from fasttrain.base.sizes import format_size, parse_size
from fasttrain.loading.dataset import ImageDataset, readable_sizes

_SHARE = 0.75  # of the memory that is left, for ``auto``
_WINDOWS = 2  # that are in memory at a time, at the edge between them
MemoryMode = Literal["resident", "cached", "windowed", "streamed"]


@dataclass(frozen=True)
class MemoryPlan:
    """What stays in memory.

    Attributes:
        mode: ``resident``: all images, decoded; ``cached``: the files as they are, in the system's page cache;
            ``windowed``: two windows of the file at a time, and the order is `windowed` for that;
            ``streamed``: nothing, since the order does not allow for it.
        budget: bytes that may be used on this machine.
        stored_bytes: of the images where they lie.
        pixel_bytes: of the decoded images in all processes of the machine, not counting those stored as pixels.
        window: blocks a window, if `mode` is ``windowed``.
    """

    mode: MemoryMode
    budget: int
    stored_bytes: int
    pixel_bytes: int
    window: int | None = None

    def __str__(self) -> str:
        budget, stored = format_size(self.budget), format_size(self.stored_bytes)
        if self.mode == "resident":
            return (
                f"memory plan: decoded images stay in memory, {format_size(self.pixel_bytes)} of the budget of {budget}"
                "; from the second epoch on nothing is decoded"
            )
        if self.mode == "cached":
            return f"memory plan: the images' {stored} fit the budget of {budget}, so the page cache holds them"
        if self.mode == "windowed":
            return (
                f"memory plan: the images' {stored} exceed the budget of {budget}; "
                f"windowed order, {self.window} blocks of the file at a time"
            )
        return (
            f"memory plan: the images' {stored} exceed the budget of {budget}; "
            "they are read from storage in the order that was asked for"
        )


def plan_memory(dataset: ImageDataset, rows: np.ndarray, budget: int | str, order: str | None) -> MemoryPlan:
    """Choose a mode, the fastest that fits the budget.

    Args:
        rows: (n,) int64 that will be loaded.
        budget: bytes on this machine, a size such as ``8GB``, or ``auto`` for three quarters of what is available.
        order: the order of the epochs; None when it may be chosen.

    Raises:
        LoaderError: the budget is none, or the system does not tell what is available.
        ConfigError: it is no size.
    """
    limit = _bytes_of(budget)
    sizes = dataset.stored_bytes(rows)
    stored = int(sizes.sum())
    if stored > limit:
        if order is not None and order != "windowed":
            return MemoryPlan("streamed", limit, stored, 0)
        blocks = len(np.unique(dataset.blocks(rows)))
        return MemoryPlan("windowed", limit, stored, 0, max(1, int(limit / _WINDOWS / (stored / blocks))))
    pixels = _pixel_bytes(dataset, rows) * process.local_world_size()  # each process has its own
    return MemoryPlan("resident" if 0 < pixels <= limit else "cached", limit, stored, pixels)


def _bytes_of(budget: int | str) -> int:
    if budget == "auto":
        available = process.available_memory()
        if available is None:
            raise LoaderError("this system does not tell how much memory is available; give memory_budget as a size")
        return int(available * _SHARE)
    size = parse_size(budget) if isinstance(budget, str) else budget
    if size < 1:
        raise LoaderError(f"memory_budget must be at least 1 byte, not {size}")
    return size


def _pixel_bytes(dataset: ImageDataset, rows: np.ndarray) -> int:
    """Bytes of the pixels of those `rows` that are not stored as such."""
    encoded = rows[~dataset.are_raw(rows)]
    sizes, unreadable = readable_sizes(dataset, encoded)
    return 3 * int(np.delete(sizes, list(unreadable), axis=0).prod(1).sum())
