"""Gaussian filtering of values at points of a few dimensions, such as pixels by place and colour (bilateral filtering).

By the permutohedral lattice, whose time and memory grow with the number of points and the square of the dimensions. It
approximates the sum over all pairs of points.
"""

from typing import Literal, Protocol

import numpy as np

from fasttrain.kernels import permutohedral_plain

try:
    from fasttrain.kernels import _native
except ImportError:  # installed without a compiler or libjpeg's headers
    _native = None  # type: ignore[assignment]

MOST_DIMENSIONS = 8
Backend = Literal["native", "plain"]


class Lattice(Protocol):
    """The lattice of some points; it serves any number of calls, from any thread."""

    @property
    def vertices(self) -> int:
        """Corners of simplices that hold a point."""

    def filter(self, *, values: np.ndarray, out: np.ndarray) -> None:
        """Fill `out` (N, C) with ``out[i] = sum_j exp(-|f_i - f_j|^2 / 2) values[j]``, up to a factor that is the same
        everywhere; both are float32 and C-contiguous."""


def native_there() -> bool:
    """Whether the native kernels were built."""
    return _native is not None


def open_lattice(features: np.ndarray, *, backend: Backend | None = None) -> Lattice:
    """The lattice of points.

    Args:
        features: (N, d) float32, d from 1 to 8: places of the points, divided by the filter's standard deviations.
        backend: ``native`` (C++) or ``plain`` (NumPy, several times as slow); None for the faster one that is there.

    Raises:
        ValueError: shape or type do not fit, a feature is not finite, or further from 0 than 16 bits can count.
    """
    if features.ndim != 2 or features.dtype != np.float32 or not 1 <= features.shape[1] <= MOST_DIMENSIONS:
        raise ValueError(f"features are (N, d) float32 of at most 8 dimensions, not {features.shape} {features.dtype}")
    if not np.isfinite(features).all():
        raise ValueError("features must be finite")
    if backend == "plain" or not native_there():
        return permutohedral_plain.Lattice(features)
    return _native.Lattice(np.ascontiguousarray(features))
