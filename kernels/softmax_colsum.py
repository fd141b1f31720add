"""One pass over a score matrix: row softmax under column offsets, summed over rows. The heart of a Sinkhorn iteration.

NumPy; the reference version. Row sums of the transport plan are exactly 1, so its row dual is eliminated and an
iteration is this pass and an update of C numbers.
"""

import numpy as np

# Entries of a row block: small enough that a block and its exponentials stay in a core's cache.
BLOCK_ENTRIES = 1 << 17


def softmax_colsum(scores: np.ndarray, offsets: np.ndarray, temperature: float) -> np.ndarray:
    """Column sums of ``softmax(scores / temperature + offsets)`` taken row by row.

    Args:
        scores: (N, C) float16, float32 or float64; -inf is allowed, but not a row of nothing else.
        offsets: (C,) float64; -inf takes a column out.
        temperature: positive.

    Returns:
        (C,) float64 sums; they add up to N.

    Exponentials are float32 for scores of 16 and 32 bits and float64 for float64; sums are float64 and in a fixed
    order, so that results repeat bit for bit.
    """
    rows, columns = scores.shape
    dtype = np.float64 if scores.dtype == np.float64 else np.float32
    shift = offsets.astype(dtype)
    sums = np.zeros(columns)
    step = max(1, BLOCK_ENTRIES // columns)
    for start in range(0, rows, step):
        block = scores[start : start + step].astype(dtype)  # a copy, used in place from here on
        block *= dtype(1 / temperature)
        block += shift
        block -= block.max(1, keepdims=True)
        np.exp(block, out=block)
        normaliser = block.sum(1, keepdims=True, dtype=np.float64)
        sums += (1 / normaliser[:, 0]) @ block
    return sums
