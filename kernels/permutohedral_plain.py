"""The permutohedral lattice in NumPy: the reference of the native one.

Adams, Baek & Davis, "Fast High-Dimensional Filtering Using the Permutohedral Lattice", Eurographics 2010: points are
shared out among the corners of the simplex that they lie in, corners blur along each axis of the lattice, and points
take back their share.
"""

import numpy as np

FARTHEST = 32_000  # coordinates of vertices, which the native keys hold in 16 bits


class Lattice:
    """As `fasttrain.kernels.permutohedral.open_lattice` gives it, of features (N, d) float32."""

    def __init__(self, features: np.ndarray) -> None:
        corner, rank, self._weights = _simplices(features)
        dimensions = features.shape[1]
        keys = np.stack([_keys(corner, rank, remainder) for remainder in range(dimensions + 1)], 1)
        codes, digits = _codes(keys.reshape(-1, dimensions))
        found, places = np.unique(codes, return_inverse=True)
        self._places = places.reshape(len(features), dimensions + 1)
        self._next = [_neighbours(found, digits, axis) for axis in range(dimensions + 1)]

    @property
    def vertices(self) -> int:
        return len(self._next[0])

    def filter(self, *, values: np.ndarray, out: np.ndarray) -> None:
        """Fill `out` (N, C) float32 from `values` (N, C) float32."""
        for channel in range(values.shape[1]):
            shares = self._weights * values[:, channel, None]
            held = np.bincount(self._places.ravel(), shares.ravel(), self.vertices)
            for following in self._next:
                there = following >= 0
                blurred = held.copy()
                blurred[there] += 0.5 * held[following[there]]
                blurred[following[there]] += 0.5 * held[there]
                held = blurred
            out[:, channel] = (self._weights * held[self._places]).sum(1)


def _simplices(features: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each point the remainder-0 corner and the order of its residuals, both (N, d + 1) int64, and the barycentric
    weights (N, d + 1) of its simplex."""
    count, dimensions = features.shape
    corners = dimensions + 1
    steps = np.arange(1, corners)
    scaled = features.astype(np.float64) * (corners * np.sqrt(2 / 3 / (steps * (steps + 1))))
    behind = np.cumsum(scaled[:, ::-1], 1)[:, ::-1]  # the sum from each dimension to the last
    elevated = np.concatenate([behind, np.zeros((count, 1))], 1)
    elevated[:, 1:] -= steps * scaled
    rounded = np.rint(elevated / corners)
    if np.abs(rounded).max(initial=0) * corners >= FARTHEST:
        raise ValueError("features lie too far from 0; take larger standard deviations")
    corner = corners * rounded
    residuals = elevated - corner
    rank = np.empty((count, corners), np.int64)
    # The largest residual is first; of equal ones the later.
    order = corners - 1 - np.argsort(-residuals[:, ::-1], 1, kind="stable")
    np.put_along_axis(rank, order, np.arange(corners)[None], 1)
    rank += rounded.sum(1, dtype=np.int64)[:, None]  # back onto the plane where coordinates add up to 0
    turns = (rank < 0).astype(np.int64) - (rank >= corners)
    rank += corners * turns
    corner += corners * turns
    shares = (elevated - corner) / corners
    weights = np.zeros((count, corners + 1))
    rows = np.arange(count)[:, None]
    np.add.at(weights, (rows, dimensions - rank), shares)
    np.add.at(weights, (rows, corners - rank), -shares)
    weights[:, 0] += 1 + weights[:, corners]
    return corner.astype(np.int64), rank, weights[:, :corners]


def _keys(corner: np.ndarray, rank: np.ndarray, remainder: int) -> np.ndarray:
    """(N, d) int64: all coordinates but the last of a corner of each simplex."""
    corners = corner.shape[1]
    steps = np.where(rank < corners - remainder, remainder, remainder - corners)
    keys: np.ndarray = (corner + steps)[:, :-1]
    return keys


def _codes(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(K,) int64: one number for each of the keys (K, d), and what a step along each coordinate changes it by, (d,)."""
    margin = keys.shape[1] + 1  # further than neighbours are away
    least = keys.min(0) - margin
    spans = keys.max(0) + margin - least + 1
    if spans.astype(np.float64).prod() >= 2.0**62:
        raise ValueError("features lie too far from each other for NumPy; take larger standard deviations")
    digits = np.concatenate([[1], np.cumprod(spans[:-1])])
    return (keys - least) @ digits, digits


def _neighbours(codes: np.ndarray, digits: np.ndarray, axis: int) -> np.ndarray:
    """(M,) int64: the vertex that follows each one along an axis, -1 where there is none.

    Args:
        codes: (M,) of the vertices, rising.
    """
    step = -digits.sum()
    if axis < len(digits):
        step += (len(digits) + 1) * digits[axis]
    wanted = codes + step
    places = np.searchsorted(codes, wanted).clip(max=len(codes) - 1)
    return np.where(codes[places] == wanted, places, -1)
