"""`fasttrain.kernels.depthwise` in NumPy: the reference version, in the precision of its arrays."""

import numpy as np

Pair = tuple[int, ...]  # down, across


def by_images(slopes: np.ndarray, weights: np.ndarray, sides: Pair, stride: Pair, padding: Pair) -> np.ndarray:
    """(N, H, W, C) from the gradient by the outputs and the weights (height, width, C); `sides` are H and W."""
    padded = [side + 2 * zeros for side, zeros in zip(sides, padding, strict=True)]
    out = np.zeros((len(slopes), *padded, slopes.shape[3]), slopes.dtype)
    for y, x in np.ndindex(weights.shape[:2]):
        _seen(out, y, x, slopes.shape[1:3], stride)[...] += slopes * weights[y, x]
    return out[:, padding[0] : padded[0] - padding[0], padding[1] : padded[1] - padding[1]]


def by_weights(images: np.ndarray, slopes: np.ndarray, kernel: Pair, stride: Pair, padding: Pair) -> np.ndarray:
    """(height, width, C) from the images and the gradient by the outputs."""
    padded = np.pad(images, ((0, 0), *((zeros, zeros) for zeros in padding), (0, 0)))
    out = np.empty((*kernel, images.shape[3]), images.dtype)
    for y, x in np.ndindex(*kernel):
        out[y, x] = np.einsum("nhwc,nhwc->c", _seen(padded, y, x, slopes.shape[1:3], stride), slopes)
    return out


def _seen(padded: np.ndarray, y: int, x: int, outputs: Pair, stride: Pair) -> np.ndarray:
    """What a weight of all outputs sees (N, H', W', C), the same memory."""
    bottom, right = y + stride[0] * (outputs[0] - 1) + 1, x + stride[1] * (outputs[1] - 1) + 1
    return padded[:, y : bottom : stride[0], x : right : stride[1]]
