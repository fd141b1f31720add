"""What a loader reads: images by row, with their sizes, labels, ids and masks."""

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import ArrayLike

from fasttrain.base.errors import ImageError, LoaderError
from fasttrain.beton_build.mask_info import MaskInfo
from fasttrain.kernels.loading import Kept, Sources, stored_elsewhere


class ImageDataset(ABC):
    """Samples numbered 0 … N-1.

    Attributes:
        name: what to call it in messages.
        num_samples: N.
        labels: (N,) int64, -1 where unknown.
        keys: (N,) uint64: what each sample's randomness is keyed by.
        class_names: names of the labels, None if unknown.
        fingerprint: changes with the samples, their order or their content.
        masks: what the masks mean, None for a data set without them.
        keeps_images: whether whole images stay in memory, so that none should be decoded in part or at a smaller size.
    """

    name: str
    num_samples: int
    labels: np.ndarray
    keys: np.ndarray
    class_names: list[str] | None
    fingerprint: str
    masks: MaskInfo | None = None
    keeps_images = False

    @abstractmethod
    def sizes(self, rows: np.ndarray) -> np.ndarray:
        """(n, 2) int64: width and height in pixels of the images of `rows`."""

    @abstractmethod
    def blocks(self, rows: np.ndarray) -> np.ndarray:
        """(n,) int64: number of the stretch of storage in which each of `rows` lies, the unit of the windowed order."""

    @abstractmethod
    def stored_bytes(self, rows: np.ndarray) -> np.ndarray:
        """(n,) int64: bytes that the images of `rows` take where they lie; 0 for one that is not there."""

    def are_raw(self, rows: np.ndarray) -> np.ndarray:
        """(n,) bool: whether the images of `rows` are stored as pixels."""
        return np.zeros(len(rows), bool)

    def are_indexed(self, rows: np.ndarray) -> np.ndarray:
        """(n,) bool: whether the images of `rows` have a random-access index (see `fasttrain.kernels.indexed`)."""
        return np.zeros(len(rows), bool)

    def rows_of(self, ids: ArrayLike) -> np.ndarray:
        """(n,) int64 rows that a batch's ``ids`` are.

        Raises:
            LoaderError: one is not a row of the data set, as the -1 of padded entries.
        """
        rows = np.asarray(ids, np.int64)
        if len(rows) and (rows.min() < 0 or rows.max() >= self.num_samples):
            raise LoaderError(
                f"ids must be rows 0 to {self.num_samples - 1} of {self.name}; of a padded batch look up ids[valid]"
            )
        return rows

    @abstractmethod
    def string_ids(self, rows: np.ndarray) -> list[str]:
        """The string ids of `rows`."""

    @abstractmethod
    def column(self, name: str) -> np.ndarray:
        """(N,) numbers that the samples have in the field `name`.

        Raises:
            BetonError, LoaderError: there is no such field, or it holds no numbers.
        """

    @abstractmethod
    def decode(self, row: int) -> np.ndarray:
        """Pixels of an image, (H, W, 3) uint8 RGB.

        Raises:
            ImageError: it cannot be decoded.
        """

    def mask(self, row: int) -> np.ndarray:
        """The mask of an image, (H, W) uint8, read-only.

        Raises:
            ImageError: the file's records of it cannot be right.
            LoaderError: the data set has no masks.
        """
        raise LoaderError(f"{self.name} holds no masks; build a .beton with --masks")

    def mask_pixels(self) -> np.ndarray:
        """(N, C + 1) uint32: pixels of each class in each mask, then those that count for nothing.

        Raises:
            LoaderError: the data set has no masks.
        """
        raise LoaderError(f"{self.name} holds no masks; build a .beton with --masks")

    def stored(self, rows: np.ndarray) -> Sources:
        """Where the bytes of `rows` lie, for decoders other than `decode`; ``OTHER`` for what only that one can decode.

        Raises:
            ImageError: the size of an image cannot be read.
        """
        return stored_elsewhere(len(rows))

    def claim(self, rows: np.ndarray, chosen: np.ndarray) -> Kept | None:
        """Where decoders other than `decode` are to leave the whole images of the `chosen` ((n,) bool) of `rows`; None
        for nowhere. Whoever asks says later, by `settle`, what became of it."""
        return None

    def settle(self, rows: np.ndarray, done: np.ndarray) -> None:  # noqa: B027 (most kinds keep nothing)
        """Of claimed `rows`, the `done` ((n,) bool) lie where they should; the others have to be claimed again."""

    @abstractmethod
    def image_error(self, row: int, reason: str) -> ImageError:
        """An error about the image of `row`, naming the sample and where it lies."""

    def close(self) -> None:  # noqa: B027 (most kinds hold nothing open)
        """Release files."""


def readable_sizes(dataset: ImageDataset, rows: np.ndarray) -> tuple[np.ndarray, dict[int, ImageError]]:
    """Sizes (n, 2) int64 of the images of `rows`, 1 x 1 where they cannot be read, and why, by position in `rows`."""
    try:
        return dataset.sizes(rows), {}
    except ImageError:
        pass
    sizes, errors = np.ones((len(rows), 2), np.int64), {}
    for position in range(len(rows)):  # one by one, to tell the good from the bad
        try:
            sizes[position] = dataset.sizes(rows[position : position + 1])[0]
        except ImageError as error:
            errors[position] = error
    return sizes, errors
