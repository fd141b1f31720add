"""Gradients of depthwise convolutions: each channel of the images has a filter of its own.

All arrays are float32 and C-contiguous, images and gradients by pixels (N, H, W, C), weights (height, width, C).
"""

from typing import Literal, NamedTuple

import numpy as np

from fasttrain.base.process import available_cores
from fasttrain.kernels import depthwise_plain

try:
    from fasttrain.kernels import _native
except ImportError:  # installed without a compiler or libjpeg's headers
    _native = None  # type: ignore[assignment]

Backend = Literal["native", "plain"]


class Gradients(NamedTuple):
    """What was asked for: by the images (N, H, W, C), by the weights (height, width, C)."""

    images: np.ndarray | None
    weights: np.ndarray | None


def native_gains() -> bool:
    """Whether the native kernels were built, and use instructions with which they are faster than torch's way."""
    return _native is not None and _native.current_simd() != "portable"


def gradients(
    images: np.ndarray,
    slopes: np.ndarray,
    weights: np.ndarray,
    *,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    out: Gradients | None = None,
    threads: int | None = None,
    backend: Backend | None = None,
) -> Gradients:
    """The gradients of `torch.nn.functional.conv2d` with as many groups as channels.

    Args:
        images: (N, H, W, C), that went in.
        slopes: (N, H', W', C), the gradient by what came out.
        weights: (height, width, C).
        stride: down and across.
        padding: zeros on each side, above and below, left and right; less than the kernel's size.
        out: arrays that are filled; None in it leaves that gradient out. By default new ones of both.
        threads: at most so many; None for one a core. Results are the same bits with any number.
        backend: ``native`` (C++) or ``plain`` (NumPy); None for the faster one that is there.

    Returns:
        `out`, or new arrays like it.

    Raises:
        ValueError: shapes, types or layouts do not fit.
    """
    if out is None:
        out = Gradients(np.empty_like(images), np.empty_like(weights))
    if backend == "native" and _native is None:
        raise ValueError("the native kernels were not built; `fasttrain doctor` says what they need")
    if _native is not None and backend != "plain":
        _native.depthwise_gradients(
            images=images,
            gradients=slopes,
            weights=weights,
            by_images=out.images,
            by_weights=out.weights,
            stride=stride,
            padding=padding,
            threads=threads or available_cores(),
        )
        return out
    if out.images is not None:
        out.images[...] = depthwise_plain.by_images(slopes, weights, images.shape[1:3], stride, padding)
    if out.weights is not None:
        out.weights[...] = depthwise_plain.by_weights(images, slopes, weights.shape[:2], stride, padding)
    return out
