"""`fasttrain.kernels.winograd` in NumPy: the reference version, in the precision of its arrays."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np

POINTS = (0.0, 1.0, -1.0, 2.0, -2.0)  # and infinity
MOST_OUTPUTS = 4


@dataclass(frozen=True)
class Transforms:
    """What makes m outputs in a row from m + 2 inputs and 3 weights: ``y = A^T [(G g) * (B^T d)]``.

    Attributes:
        points: the m + 2 of the six points that are used: places in `POINTS`, infinity being the last.
        inputs, outputs: B^T (m + 2, m + 2) and A^T (m, m + 2), float64.
    """

    points: tuple[int, ...]
    inputs: np.ndarray
    outputs: np.ndarray


@cache
def transforms(outputs: int) -> Transforms:
    """Those of Toom and Cook for 1 to 4 outputs, with the G of four: what their own G has else is in B."""
    points = POINTS[: outputs + 1]
    scales = [_spread(POINTS, i) / _spread(points, i) for i in range(len(points))]
    inputs = np.zeros((outputs + 2, outputs + 2))
    for i, scale in enumerate(scales):
        inputs[i, : outputs + 1] = scale * np.polynomial.polynomial.polyfromroots(points[:i] + points[i + 1 :])
    inputs[-1] = np.polynomial.polynomial.polyfromroots(points)
    powers = np.vander(points, outputs, increasing=True).T
    infinity = np.zeros((outputs, 1))
    infinity[-1] = 1
    return Transforms((*range(outputs + 1), len(POINTS)), inputs, np.hstack([powers, infinity]))


@cache
def weight_transform() -> np.ndarray:
    """G, (6, 3) float64."""
    rows = [np.array([1, point, point**2]) / _spread(POINTS, i) for i, point in enumerate(POINTS)]
    return np.array([*rows, [0, 0, 1]])


def convolve(images: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """As `fasttrain.kernels.winograd.convolve`."""
    g = weight_transform()
    filters = np.einsum("pi,kcij,qj->pqck", g, weights, g).astype(weights.dtype)
    out = np.empty((*images.shape[:3], weights.shape[0]), images.dtype)
    padded = _padded(images)
    for rows, columns, down, across in _tiles(images):
        points = _at_points(padded, rows, columns, down, across)
        products = np.einsum("npqc,pqck->npqk", points, filters[np.ix_(down.points, across.points)])
        out[:, rows, columns] = np.einsum("ip,npqk,jq->nijk", down.outputs, products, across.outputs)
    return out


def weight_gradient(images: np.ndarray, gradients: np.ndarray) -> np.ndarray:
    """As `fasttrain.kernels.winograd.weight_gradient`."""
    sums = np.zeros((len(POINTS) + 1, len(POINTS) + 1, images.shape[3], gradients.shape[3]), images.dtype)
    padded = _padded(images)
    for rows, columns, down, across in _tiles(images):
        points = _at_points(padded, rows, columns, down, across)
        slopes = np.einsum("ip,nijk,jq->npqk", down.outputs, gradients[:, rows, columns], across.outputs)
        sums[np.ix_(down.points, across.points)] += np.einsum("npqc,npqk->pqck", points, slopes)
    g = weight_transform()
    return np.einsum("pi,pqck,qj->kcij", g, sums, g).astype(images.dtype)


def _spread(points: tuple[float, ...], number: int) -> float:
    """The product of a point's distances to the others."""
    return float(np.prod([points[number] - other for i, other in enumerate(points) if i != number]))


def _padded(images: np.ndarray) -> np.ndarray:
    return np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))


def _tiles(images: np.ndarray) -> Iterator[tuple[slice, slice, Transforms, Transforms]]:
    """Rows and columns of outputs with their transforms: by fours, and what is left."""
    for rows in _pieces(images.shape[1]):
        for columns in _pieces(images.shape[2]):
            yield rows, columns, transforms(rows.stop - rows.start), transforms(columns.stop - columns.start)


def _pieces(side: int) -> list[slice]:
    return [slice(start, min(start + MOST_OUTPUTS, side)) for start in range(0, side, MOST_OUTPUTS)]


def _at_points(padded: np.ndarray, rows: slice, columns: slice, down: Transforms, across: Transforms) -> np.ndarray:
    inputs = padded[:, rows.start : rows.stop + 2, columns.start : columns.stop + 2]
    return np.einsum("pi,nijc,qj->npqc", down.inputs, inputs, across.inputs)
