"""Convolutions of 3 x 3 with stride 1 and padding 1 by Winograd's way: the three passes that training makes.

Lavin & Gray, "Fast Algorithms for Convolutional Neural Networks", arXiv 1509.09308: tiles of 4 x 4 outputs from 6 x 6
inputs, with 36 multiplications a pair of channels instead of 144. In float32 results differ from the direct way's by
1e-5 of their size. All arrays are float32, images and gradients by pixels (N, H, W, C) and C-contiguous; weights
(K, C, 3, 3) may have any strides.
"""

from typing import Literal

import numpy as np

from fasttrain.base.process import available_cores
from fasttrain.kernels import winograd_plain

try:
    from fasttrain.kernels import _native
except ImportError:  # installed without a compiler or libjpeg's headers
    _native = None  # type: ignore[assignment]

Backend = Literal["native", "plain"]


def native_there() -> bool:
    """Whether the native kernels were built."""
    return _native is not None


def native_gains() -> bool:
    """Whether the native kernels were built, and use instructions with which they are faster than torch's way."""
    return _native is not None and _native.current_simd() != "portable"


def convolve(
    images: np.ndarray,
    weights: np.ndarray,
    *,
    out: np.ndarray | None = None,
    threads: int | None = None,
    backend: Backend | None = None,
) -> np.ndarray:
    """What the filters find in images, as `torch.nn.functional.conv2d` has it.

    Args:
        images: (N, H, W, C).
        weights: (K, C, 3, 3).
        out: (N, H, W, K), is filled.
        threads: at most so many; None for one a core. Results are the same bits with any number.
        backend: ``native`` (C++) or ``plain`` (NumPy); None for the faster one that is there.

    Returns:
        `out`, or a new array like it.

    Raises:
        ValueError: shapes, types or layouts do not fit.
    """
    if out is None:
        out = np.empty((*images.shape[:3], weights.shape[0]), np.float32)
    if _takes_native(backend):
        _native.winograd_convolve(images=images, weights=weights, out=out, threads=threads or available_cores())
    else:
        out[...] = winograd_plain.convolve(images, weights)
    return out


def input_gradient(
    gradients: np.ndarray,
    weights: np.ndarray,
    *,
    out: np.ndarray | None = None,
    threads: int | None = None,
    backend: Backend | None = None,
) -> np.ndarray:
    """The gradient by the images (N, H, W, C), from that by the outputs (N, H, W, K); otherwise as `convolve`."""
    turned = weights.transpose(1, 0, 2, 3)[:, :, ::-1, ::-1]
    return convolve(gradients, turned, out=out, threads=threads, backend=backend)


def weight_gradient(
    images: np.ndarray,
    gradients: np.ndarray,
    *,
    out: np.ndarray | None = None,
    threads: int | None = None,
    backend: Backend | None = None,
) -> np.ndarray:
    """The gradient by the weights (K, C, 3, 3), from images and the gradient by the outputs; otherwise as `convolve`.

    Sums are formed in an order that depends on the shapes alone.
    """
    if out is None:
        out = np.empty((gradients.shape[3], images.shape[3], 3, 3), np.float32)
    if _takes_native(backend):
        _native.winograd_weight_gradient(
            images=images, gradients=gradients, out=out, threads=threads or available_cores()
        )
    else:
        out[...] = winograd_plain.weight_gradient(images, gradients)
    return out


def _takes_native(backend: Backend | None) -> bool:
    if backend == "native" and _native is None:
        raise ValueError("the native kernels were not built; `fasttrain doctor` says what they need")
    return _native is not None and backend != "plain"
