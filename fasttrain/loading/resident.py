"""A data set whose images stay in memory once they are decoded."""

import threading

import numpy as np

from fasttrain.base.errors import ImageError, LoaderError
from fasttrain.base.sizes import format_size
from fasttrain.kernels.loading import RAW, Kept, Sources, gather
from fasttrain.loading.dataset import ImageDataset, readable_sizes

# What is known of an image: not here, on its way, left by other decoders, or by `decode`.
_ABSENT, _CLAIMED, _LEFT, _DECODED = range(4)
_NOWHERE = -1


def _memory(size: int) -> np.ndarray:
    try:
        return np.empty(size, np.uint8)
    except MemoryError:
        raise LoaderError(
            f"the system does not give {format_size(size)} of memory for decoded images; use a smaller memory_budget"
        ) from None


class ResidentDataset(ImageDataset):
    """Another data set, `rows` ((n,) int64) of which are kept as pixels from their first decoding on.

    Images that are stored as pixels stay where they are, unless `raw_too`. The memory is asked for as a whole, but the
    system gives it only as it is filled.

    Attributes:
        pixels: flat uint8, the images in the order of `rows`; what is not decoded yet is undefined.
    """

    keeps_images = True

    def __init__(self, inner: ImageDataset, rows: np.ndarray, raw_too: bool = False) -> None:
        self._inner = inner
        self.name, self.num_samples, self.labels, self.keys = inner.name, inner.num_samples, inner.labels, inner.keys
        self.class_names, self.fingerprint, self.masks = inner.class_names, inner.fingerprint, inner.masks
        kept = rows if raw_too else rows[~inner.are_raw(rows)]
        sizes, unreadable = readable_sizes(inner, kept)
        kept, sizes = (np.delete(array, list(unreadable), axis=0) for array in (kept, sizes))
        ends = np.cumsum(3 * sizes.prod(1))
        self._offsets = np.full(inner.num_samples, _NOWHERE, np.int64)
        self._offsets[kept] = np.r_[0, ends[:-1]]
        self.pixels = _memory(int(ends[-1]) if len(ends) else 0)
        self._state = np.full(inner.num_samples, _ABSENT, np.uint8)
        self._lock = threading.Lock()

    def sizes(self, rows: np.ndarray) -> np.ndarray:
        return self._inner.sizes(rows)

    def blocks(self, rows: np.ndarray) -> np.ndarray:
        return self._inner.blocks(rows)

    def stored_bytes(self, rows: np.ndarray) -> np.ndarray:
        return self._inner.stored_bytes(rows)

    def are_raw(self, rows: np.ndarray) -> np.ndarray:
        return self._inner.are_raw(rows)

    def are_indexed(self, rows: np.ndarray) -> np.ndarray:
        return self._inner.are_indexed(rows)

    def string_ids(self, rows: np.ndarray) -> list[str]:
        return self._inner.string_ids(rows)

    def column(self, name: str) -> np.ndarray:
        return self._inner.column(name)

    def mask(self, row: int) -> np.ndarray:
        return self._inner.mask(row)

    def mask_pixels(self) -> np.ndarray:
        return self._inner.mask_pixels()

    def image_error(self, row: int, reason: str) -> ImageError:
        return self._inner.image_error(row, reason)

    def decode(self, row: int) -> np.ndarray:
        if self._state[row] >= _LEFT:
            return self._place(row)
        pixels = self._inner.decode(row)
        if len(self._claim(np.array([row]))):
            place = self._place(row)
            fits = place.shape == pixels.shape
            if fits:
                place[:] = pixels
            self._state[row] = _DECODED if fits else _ABSENT
        return pixels

    def stored(self, rows: np.ndarray) -> Sources:
        # What only `decode` could decode is left to it from then on, too: rounding differs, and epochs are to be alike.
        state = self._state[rows]
        left, absent = np.flatnonzero(state == _LEFT), np.flatnonzero(state < _LEFT)
        parts = []
        if len(left):
            parts.append((left, self._resident(rows[left])))
        if len(absent):
            parts.append((absent, self._inner.stored(rows[absent])))
        return gather(len(rows), parts)

    def claim(self, rows: np.ndarray, chosen: np.ndarray) -> Kept | None:
        claimed = self._claim(rows[chosen])
        if not len(claimed):
            return None
        offsets = np.full(len(rows), _NOWHERE, np.int64)
        positions = np.flatnonzero(chosen)[claimed]
        offsets[positions] = self._offsets[rows[positions]]
        return Kept(self.pixels, offsets)

    def settle(self, rows: np.ndarray, done: np.ndarray) -> None:
        with self._lock:
            self._state[rows] = np.where(done, _LEFT, _ABSENT)

    def close(self) -> None:
        self._inner.close()

    def _claim(self, rows: np.ndarray) -> np.ndarray:
        """Positions of those `rows` that nobody had claimed before; one of each, if a row occurs several times."""
        with self._lock:
            positions = np.flatnonzero((self._state[rows] == _ABSENT) & (self._offsets[rows] != _NOWHERE))
            positions = positions[np.unique(rows[positions], return_index=True)[1]]
            self._state[rows[positions]] = _CLAIMED
            return positions

    def _place(self, row: int) -> np.ndarray:
        """(H, W, 3) of the memory, for the pixels of `row`."""
        width, height = self._inner.sizes(np.array([row]))[0].tolist()
        start = int(self._offsets[row])
        return self.pixels[start : start + 3 * width * height].reshape(height, width, 3)

    def _resident(self, rows: np.ndarray) -> Sources:
        sizes = self._inner.sizes(rows)
        return Sources(
            stored=np.full(len(rows), RAW, np.uint8),
            buffers=[self.pixels.data],
            buffer=np.zeros(len(rows), np.int64),
            offsets=self._offsets[rows],
            lengths=3 * sizes.prod(1),
            paths=[None] * len(rows),
            sizes=sizes,
        )
