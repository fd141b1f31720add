"""Are scores numbers of their kind? Found on their bits, at the speed of memory."""

import numpy as np

# Entries that are looked at in one go: few enough to stay in a core's cache.
BLOCK_ENTRIES = 1 << 17
# What the sum of rounded log-probabilities may be off.
LOG_PROB_LIMIT = 0.01


def first_bad_row(scores: np.ndarray, kind: str) -> int | None:
    """First row of (n, C) float16 or float32 `scores` that does not hold scores of a kind.

    That is one with NaN or +inf; in ``logits`` and ``log_probs`` one of nothing but -inf; in ``log_probs`` one with a
    value above 0 by more than rounding; in ``probs`` one with a negative value, or of zeros alone.
    """
    step = max(1, BLOCK_ENTRIES // scores.shape[1])
    for start in range(0, len(scores), step):
        block = scores[start : start + step]
        rows = _suspects(np.ascontiguousarray(block), kind)
        if rows.size and (bad := are_bad(block[rows].max(1), block[rows].min(1), kind)).any():
            return start + int(rows[bad.argmax()])
    return None


def _suspects(block: np.ndarray, kind: str) -> np.ndarray:
    """Rows whose bits are out of the ordinary, among them all bad ones.

    Numbers of the same sign are ordered as their bits are, infinity and NaN have the largest; integers are compared
    several at once, also those of 16 bits.
    """
    unsigned, signed = (np.uint16, np.int16) if block.dtype == np.float16 else (np.uint32, np.int32)
    infinity = np.array(np.inf, block.dtype).view(unsigned)
    bits = block.view(unsigned)
    if kind == "probs":  # negative ones have the sign bit, so they are larger than infinity
        largest = bits.max(1)
        return np.flatnonzero((largest >= infinity) | (largest == 0))
    size = bits & unsigned(np.iinfo(signed).max)
    limit = np.array(LOG_PROB_LIMIT, block.dtype).view(signed)
    if size.max() < infinity and (kind == "logits" or block.view(signed).max() <= limit):
        return np.empty(0, np.intp)
    odd = size.max(1) >= infinity
    return np.flatnonzero(odd if kind == "logits" else odd | (block.view(signed).max(1) > limit))


def are_bad(top: np.ndarray, least: np.ndarray, kind: str) -> np.ndarray:
    """(n,) bool: which rows do not hold scores of a kind, by the largest and smallest value (n,) of each."""
    bad = np.isnan(top) | np.isposinf(top)  # NaN goes through both
    if kind == "probs":
        return bad | (least < 0) | (top <= 0)
    bad |= np.isneginf(top)  # -inf is the logarithm of 0; a row of nothing else says nothing
    return bad | (top > LOG_PROB_LIMIT) if kind == "log_probs" else bad
