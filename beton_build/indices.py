"""Where the random-access indices of the JPEGs in a `.beton` lie: inside of the file, behind each image."""

from abc import ABC, abstractmethod
from functools import cached_property
from typing import Literal

import numpy as np

from fasttrain.beton_build.format import INDEX_ALIGNMENT
from fasttrain.beton_build.trailer import Trailer

SIZES, CHECKSUMS = "index_sizes", "index_xxh3"  # sections of the trailer
_LOW_BITS = np.uint64(INDEX_ALIGNMENT - 1)


class Indices(ABC):
    """The indices of the N images of a file.

    Attributes:
        where: inside of the file, or in a file of its own beside it.
        data: the buffer in which they lie.
        stop: where in `data` the last of them ends at the latest.
    """

    where: Literal["inside", "sidecar"]
    data: memoryview
    stop: int

    @property
    @abstractmethod
    def sizes(self) -> np.ndarray:
        """(N,) uint64: bytes of each index, 0 where an image has none.

        Raises:
            BetonError: the table of them is damaged.
        """

    @property
    @abstractmethod
    def checksums(self) -> np.ndarray:
        """(N,) uint64: xxh3-64 of each index.

        Raises:
            BetonError: the table of them is damaged.
        """

    @abstractmethod
    def places(self, rows: np.ndarray, image_ends: np.ndarray) -> np.ndarray:
        """(n,) uint64: where in `data` the indices of `rows` start, whose images end at `image_ends` of the file."""


class InnerIndices(Indices):
    """Indices inside of the file, each behind its image."""

    where = "inside"

    def __init__(self, trailer: Trailer, num_samples: int, data: memoryview) -> None:
        self.data = data
        self.stop = trailer.start
        self._trailer, self._num_samples = trailer, num_samples

    @cached_property
    def sizes(self) -> np.ndarray:
        return self._trailer.array(SIZES, self._num_samples)

    @cached_property
    def checksums(self) -> np.ndarray:
        return self._trailer.array(CHECKSUMS, self._num_samples)

    def places(self, rows: np.ndarray, image_ends: np.ndarray) -> np.ndarray:
        return (image_ends + _LOW_BITS) & ~_LOW_BITS


def index_regions(
    indices: Indices, rows: np.ndarray, image_ends: np.ndarray, sound: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Where the indices of `rows` lie in ``indices.data``.

    Args:
        image_ends: (n,) uint64: where in the file the images of `rows` end.
        sound: (n,) bool: whether that can be right.

    Returns:
        (n,) int64 offsets, multiples of 8, and (n,) int64 lengths in bytes; 0 for images that have none, and where the
        records of one cannot be right.
    """
    sizes = indices.sizes[rows]
    places = indices.places(rows, image_ends)
    stop = np.uint64(indices.stop)
    inside = (places <= stop) & (sizes <= stop - np.minimum(places, stop))
    usable = sound & inside & (places & _LOW_BITS == 0) & (sizes & _LOW_BITS == 0) & (sizes > 0)
    return np.where(usable, places, 0).astype(np.int64), np.where(usable, sizes, 0).astype(np.int64)
