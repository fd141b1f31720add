"""The fully connected CRF over pixels: labels of pixels agree with those of pixels that are near and alike.

Krähenbühl & Koltun, "Efficient Inference in Fully Connected CRFs with Gaussian Edge Potentials", NIPS 2011. Mean-field
inference with Potts potentials, whose kernels are normalised on both sides (``D^-1/2 K D^-1/2``, D being the sums of
K's rows), as the authors' program has them; a pixel has its own share in the sum.
"""

from abc import ABC, abstractmethod

import numpy as np
from scipy.ndimage import gaussian_filter1d

from fasttrain.kernels.permutohedral import Backend, open_lattice

_LEAST = 1e-20


def label_energies(labels: np.ndarray, classes: int, share: float) -> np.ndarray:
    """Unary energies (L, H, W) float32 of pixels that are labelled, but not for certain: ``-log(share)`` of the label,
    and ``-log((1 - share) / (L - 1))`` of the others.

    Args:
        labels: (H, W) of integers.
        classes: L, at least 2.
        share: probability that a label is right, between 1 / L and 1.
    """
    if classes < 2 or not 1 / classes < share < 1:
        raise ValueError(f"of {classes} classes, the label's share must lie between {1 / max(classes, 1):.3f} and 1")
    right = labels[None] == np.arange(classes).reshape(-1, 1, 1)
    return np.where(right, -np.log(share), -np.log((1 - share) / (classes - 1))).astype(np.float32)


def dense_crf(
    energies: np.ndarray,
    pixels: np.ndarray,
    *,
    iterations: int,
    near: tuple[float, float],
    alike: tuple[float, float, float],
    backend: Backend | None = None,
) -> np.ndarray:
    """Probabilities (L, H, W) float32 of the labels, by mean-field inference.

    Args:
        energies: (L, H, W) float32, -log of what is thought of each pixel by itself.
        pixels: (H, W, 3) uint8.
        iterations: 0 gives what the energies say alone.
        near: standard deviation in pixels, and weight, of the kernel over places; a weight of 0 leaves it out.
        alike: standard deviations in pixels and in levels of colour, and weight, of the kernel over places and colours;
            the same.
        backend: as `fasttrain.kernels.permutohedral.open_lattice` has it.

    Raises:
        ValueError: shapes or types do not fit.
    """
    if energies.ndim != 3 or pixels.shape != (*energies.shape[1:], 3) or pixels.dtype != np.uint8:
        raise ValueError(f"energies {energies.shape} and pixels {pixels.shape} {pixels.dtype} are not of one image")
    kernels: list[tuple[float, _Normalised]] = []
    if near[1] and iterations:
        kernels.append((near[1], _Near(pixels.shape[:2], near[0])))
    if alike[2] and iterations:
        kernels.append((alike[2], _Alike(pixels, alike[0], alike[1], backend)))
    liking = np.ascontiguousarray(-energies.transpose(1, 2, 0), np.float32)
    shares = _softmax(liking)
    for _ in range(iterations):
        wanted = liking.copy()
        for weight, kernel in kernels:
            wanted += weight * kernel.message(shares)
        shares = _softmax(wanted)
    return np.ascontiguousarray(shares.transpose(2, 0, 1))


def _softmax(values: np.ndarray) -> np.ndarray:
    raised = np.exp(values - values.max(-1, keepdims=True))
    shares: np.ndarray = raised / raised.sum(-1, keepdims=True)
    return shares


class _Normalised(ABC):
    """A kernel, normalised on both sides. What it gives of 1 is known, so that the last label follows from the
    others."""

    def _normalise(self, shape: tuple[int, ...]) -> None:
        ones = np.ones((*shape, 1), np.float32)
        self._scales = 1 / np.sqrt(self._filter(ones) + _LEAST)
        self._of_ones = self._both_sides(ones)

    def message(self, shares: np.ndarray) -> np.ndarray:
        """(H, W, L) float32 of shares (H, W, L) that add up to 1."""
        others = self._both_sides(np.ascontiguousarray(shares[..., :-1]))
        return np.concatenate([others, self._of_ones - others.sum(-1, keepdims=True)], -1)

    def _both_sides(self, values: np.ndarray) -> np.ndarray:
        return self._scales * self._filter(self._scales * values)

    @abstractmethod
    def _filter(self, values: np.ndarray) -> np.ndarray:
        """The sums over all pixels, (H, W, C) of values (H, W, C)."""


class _Near(_Normalised):
    """exp(-|p_i - p_j|^2 / 2 sigma^2) over places p."""

    def __init__(self, shape: tuple[int, ...], sigma: float) -> None:
        self._sigma = sigma
        self._normalise(shape)

    def _filter(self, values: np.ndarray) -> np.ndarray:
        for axis in (0, 1):
            values = gaussian_filter1d(values, self._sigma, axis, mode="constant", truncate=4.0)
        return values


class _Alike(_Normalised):
    """exp(-|p_i - p_j|^2 / 2 sigma^2 - |c_i - c_j|^2 / 2 tau^2) over places p and colours c."""

    def __init__(self, pixels: np.ndarray, sigma: float, tau: float, backend: Backend | None) -> None:
        places = np.moveaxis(np.indices(pixels.shape[:2], np.float32), 0, -1) / sigma
        features = np.concatenate([places, pixels / np.float32(tau)], -1, dtype=np.float32)
        self._lattice = open_lattice(features.reshape(-1, 5), backend=backend)
        self._normalise(pixels.shape[:2])

    def _filter(self, values: np.ndarray) -> np.ndarray:
        out = np.empty_like(values)
        count = values.shape[-1]
        self._lattice.filter(values=values.reshape(-1, count), out=out.reshape(-1, count))
        return out
