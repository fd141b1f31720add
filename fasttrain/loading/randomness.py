"""Counter-based randomness: a draw is a pure function of (seed, epoch, sample key, operation).

So a sample gets the same view whatever the batch size, thread count, backend, rank or world size. The generator is
Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011), vectorised over samples.
"""

from enum import IntEnum

import numpy as np

_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (np.uint32(0x9E3779B9), np.uint32(0xBB67AE85))
_LOW = np.uint64(0xFFFF_FFFF)
_SHIFT = np.uint64(32)


class Operation(IntEnum):
    """What a draw is for. Numbers are part of the reproducibility contract: never re-used for something else."""

    ORDER = 0
    FLIP = 1
    JITTER = 2
    JITTER_ORDER = 3
    REPEATED_KEY = 4
    BLOCK_ORDER = 5
    DRAW_START = 6
    DRAW_ORDER = 7
    DRAWN_KEY = 8
    WRAPPED_KEY = 9
    VIEW_KEY = 10
    FLIP_PARITY = 11
    TRANSLATION = 12
    SCALE = 13
    RARE_CLASS = 14
    RARE_SAMPLE = 15
    CROP = 16  # one operation a try: 16, 17, …
    JITTER_WANTED = 2048
    AUGMENT = 4096  # and the 4095 after it; see `fasttrain.loading.augment.planning`
    MIX = 8192  # and the 4095 after it; see `fasttrain.loading.augment.mixing`
    CLASS_MIX = 16384  # one operation a class, 16384 to 16638
    STRONG = 16640  # and the 15 after it; see `fasttrain.training.adaptation.strong`
    PARTNER_AMPLITUDES = 16656


def philox(counters: np.ndarray, key: tuple[int, int]) -> np.ndarray:
    """Ten rounds of Philox4x32.

    Args:
        counters: (4, N) uint32.
        key: two 32-bit words.

    Returns:
        (4, N) uint32 of independent random bits.
    """
    c0, c1, c2, c3 = counters.astype(np.uint32)
    k0, k1 = np.uint32(key[0]), np.uint32(key[1])
    with np.errstate(over="ignore"):
        for _ in range(10):
            product0 = _MULTIPLIERS[0] * c0.astype(np.uint64)
            product1 = _MULTIPLIERS[1] * c2.astype(np.uint64)
            high0, low0 = (product0 >> _SHIFT).astype(np.uint32), (product0 & _LOW).astype(np.uint32)
            high1, low1 = (product1 >> _SHIFT).astype(np.uint32), (product1 & _LOW).astype(np.uint32)
            c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
            k0, k1 = k0 + _WEYL[0], k1 + _WEYL[1]
    return np.stack([c0, c1, c2, c3])


def random_bits(seed: int, epoch: int, keys: np.ndarray, operation: int | np.ndarray) -> np.ndarray:
    """(4, N) uint32 for the samples of `keys` ((N,) uint64), of one operation or of (N,) each its own."""
    keys = keys.astype(np.uint64)
    counters = np.empty((4, len(keys)), np.uint32)
    counters[0] = (keys & _LOW).astype(np.uint32)
    counters[1] = (keys >> _SHIFT).astype(np.uint32)
    counters[2] = operation
    counters[3] = epoch & 0xFFFF_FFFF
    return philox(counters, (seed & 0xFFFF_FFFF, (seed >> 32) & 0xFFFF_FFFF))


def uniforms(seed: int, epoch: int, keys: np.ndarray, operation: int | np.ndarray) -> np.ndarray:
    """(4, N) float64, uniform in [0, 1) with 32 random bits each."""
    return random_bits(seed, epoch, keys, operation) * 2.0**-32


def repeated_keys(keys: np.ndarray, repetition: np.ndarray, operation: int) -> np.ndarray:
    """Keys (N,) uint64 of further occurrences of samples, drawn from key and repetition; the first (0) keeps its own.

    Args:
        keys: (N,) uint64.
        repetition: (N,) of integers from 0 on.
        operation: why samples occur again; each reason has keys of its own.
    """
    again = np.flatnonzero(repetition)
    if not len(again):
        return keys
    bits = random_bits(0, 0, keys[again], operation)
    result = keys.copy()
    result[again] = ((bits[0].astype(np.uint64) << _SHIFT) | bits[1]) + repetition[again].astype(np.uint64)
    return result


def distinct_keys(keys: np.ndarray, operation: int = Operation.REPEATED_KEY) -> np.ndarray:
    """`keys` ((N,) uint64) with all but the first of equal ones replaced by other keys (see `repeated_keys`).

    The first occurrence keeps its key, so a sample's randomness is the same alone and among others.
    """
    order = np.argsort(keys, kind="stable")
    ranked = keys[order]
    new = np.r_[True, ranked[1:] != ranked[:-1]]
    if new.all():
        return keys
    position = np.arange(len(keys))
    repetition = position - np.maximum.accumulate(np.where(new, position, 0))
    result = np.empty_like(keys)
    result[order] = repeated_keys(ranked, repetition, operation)
    return result
