"""Reads parts of JPEGs that have a random-access index: the stretches of entropy code under a view, and nothing else.

The index (`index_jpeg`) says for every 128 columns of each row of MCUs where the decoder would stand there. The planes
of Y, Cb and Cr are resized by themselves straight to the size of the view, where they become colours.
"""

import numpy as np
from typing_extensions import Buffer

from fasttrain.kernels.jpeg import Data, checked_index
from fasttrain.kernels.loading import Geometry, PixelFormat

try:
    from fasttrain.kernels import _native
except ImportError:  # installed without a compiler or libjpeg's headers
    _native = None  # type: ignore[assignment]

Units = tuple[int, int, int, int]  # left, top, right, bottom in MCUs; the last two are not in it


def index_jpeg(data: Data) -> np.ndarray | None:
    """The random-access index of a JPEG, made while its whole entropy code is checked as `check_jpeg` does it.

    Returns:
        (entries,) uint64, of a number that follows from the image's size and sub-sampling alone: 28 bits of position
        from the first byte of the scan on and three means of 12 bits each. None where the extension was not built, and
        for images without such an index: progressive and arithmetic codes, restart markers, other than 8 bits, several
        scans, four components, unusual sub-sampling, scans of 32 MiB or more.

    Raises:
        ValueError: the stream is damaged or truncated, or no JPEG; the message is the reason.
    """
    return checked_index(data)[1]


class IndexedReader:
    """Decodes indexed JPEGs, one after the other, in memory that it keeps. One thread at a time may use it.

    All methods raise ValueError when the stream or the index is damaged in a way that shows, or of a kind that has no
    index. Damage that does not show gives other pixels.
    """

    def __init__(self) -> None:
        if _native is None:
            raise RuntimeError("the native kernels were not built; install a C++ compiler and libjpeg's headers")
        self._reader = _native.IndexedReader()

    def coefficients(self, data: Buffer, index: np.ndarray, units: Units) -> list[np.ndarray]:
        """Quantised coefficients of some MCUs: of each component (rows, columns, 64) int16 in natural order."""
        return self._reader.coefficients(data, index, units)

    def planes(self, data: Buffer, index: np.ndarray, units: Units, eighths: int = 8) -> list[np.ndarray]:
        """Samples of some MCUs: of each component (8 rows, 8 columns) uint8, as libjpeg's accurate IDCT has them.

        Args:
            eighths: of the size: 1, 2, 4 or 8. Blocks have so many rows and columns then; those of chroma of fewer
                samples have more where that brings them nearer to those of the luma, as libjpeg does it.
        """
        return self._reader.planes(data, index, units, eighths)

    def views(
        self,
        data: Buffer,
        index: np.ndarray,
        geometry: Geometry,
        size: int,
        pixels: PixelFormat,
        fast: bool = False,
    ) -> np.ndarray:
        """Views of one image, all from one decoding.

        Args:
            geometry: of V views; a ValueError where the image does not have them.
            fast: decode at a half, a quarter or an eighth of the size where each view's box still has as many pixels
                as it is resized to.

        Returns:
            (V, size, size, 3) in the type of `pixels`; bfloat16 as uint16.
        """
        dtype = {"bfloat16": "uint16"}.get(pixels.dtype, pixels.dtype)
        out = np.empty((len(geometry.boxes), size, size, 3), dtype)
        self._reader.views(
            data=data,
            index=index,
            out=out,
            dtype=pixels.dtype,
            scale=pixels.scale,
            shift=pixels.shift,
            filter=geometry.filter,
            boxes=geometry.boxes,
            resized=geometry.resized,
            windows=geometry.windows,
            hflip=geometry.hflip.tolist(),
            vflip=geometry.vflip.tolist(),
            fast=fast,
        )
        return out


def libjpeg_planes(data: Buffer, samples: bool, eighths: int = 8) -> list[np.ndarray]:
    """What libjpeg makes of a JPEG: the reference of `IndexedReader.planes`, or without `samples` of `coefficients`."""
    return _native.libjpeg_planes(data, samples, eighths)
