"""Random numbers of a sample's pixels: a hash of (seed, stream, counter), the same in NumPy, C++ and Triton."""

import numpy as np


def _mixed(x: np.ndarray) -> np.ndarray:
    """Wellons' lowbias32, (n,) uint32."""
    x = x ^ (x >> np.uint32(16))
    x = x * np.uint32(0x7FEB352D)
    x = x ^ (x >> np.uint32(15))
    x = x * np.uint32(0x846CA68B)
    return x ^ (x >> np.uint32(16))


def random_bits(seed: int, stream: int, count: int) -> np.ndarray:
    """(count,) uint32 of a stream of the seed (64 bits)."""
    low, high = seed & 0xFFFF_FFFF, seed >> 32
    own = np.uint32((high + stream * 0x9E3779B9) & 0xFFFF_FFFF)
    with np.errstate(over="ignore"):
        return _mixed(_mixed(np.arange(count, dtype=np.uint32) + np.uint32(low)) ^ own)


def uniforms(seed: int, stream: int, count: int) -> np.ndarray:
    """(count,) float32 in [0, 1), 24 bits each."""
    return (random_bits(seed, stream, count) >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)


def normals(seed: int, stream: int, count: int) -> np.ndarray:
    """(count,) float32 with mean 0 and variance 1, nearly normal: sums of four uniform bytes, at most 3.45."""
    bits = random_bits(seed, stream, count)
    total = sum(((bits >> np.uint32(shift)) & np.uint32(255)).astype(np.int64) for shift in (0, 8, 16, 24))
    return ((total - 510) * np.float32(1 / 147.80054)).astype(np.float32)
