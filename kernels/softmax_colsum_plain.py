"""`fasttrain.kernels.softmax_colsum` in NumPy: the reference version."""

import numpy as np

# Entries of a row block: small enough that a block and its exponentials stay in a core's cache.
BLOCK_ENTRIES = 1 << 17


def softmax_colsum_dual(scores: np.ndarray, offsets: np.ndarray, temperature: float) -> tuple[np.ndarray, float]:
    """As `fasttrain.kernels.softmax_colsum.softmax_colsum_dual`.

    Exponentials are float32 for scores of 16 and 32 bits and float64 for float64; sums are float64.
    """
    rows, columns = scores.shape
    dtype = np.float64 if scores.dtype == np.float64 else np.float32
    shift = offsets.astype(dtype)
    sums, normalisers = np.zeros(columns), 0.0
    step = max(1, BLOCK_ENTRIES // columns)
    for start in range(0, rows, step):
        block = scores[start : start + step].astype(dtype)  # a copy, used in place from here on
        block *= dtype(1 / temperature)
        block += shift
        top = block.max(1, keepdims=True)
        refuse_empty_rows(top[:, 0], start)
        block -= top
        np.exp(block, out=block)
        normaliser = block.sum(1, dtype=np.float64)
        sums += (1 / normaliser) @ block
        normalisers += float(top.sum(dtype=np.float64) + np.log(normaliser).sum())
    return sums, normalisers


def refuse_empty_rows(tops: np.ndarray, start: int) -> None:
    """Raise a ValueError if a row's largest entry is no number; `start` is the number of the first row."""
    bad = ~np.isfinite(tops)
    if bad.any():
        raise empty_row(start + int(bad.argmax()))


def empty_row(row: int) -> ValueError:
    """What is raised for a row without any possible class."""
    return ValueError(f"row {row} of the scores has no finite entry under these offsets, or one that is not a number")
