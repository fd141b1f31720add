"""One pass over a score matrix: row softmax under column offsets, summed over rows. The heart of a Sinkhorn iteration.

Row sums of the transport plan are exactly 1, so its row dual is eliminated and an iteration is this pass and an update
of C numbers.
"""

from typing import Literal

import numpy as np

from fasttrain.base.process import available_cores
from fasttrain.kernels import softmax_colsum_plain

try:
    from fasttrain.kernels import _native
except ImportError:  # installed without a compiler or libjpeg's headers
    _native = None  # type: ignore[assignment]

Backend = Literal["native", "plain"]


def softmax_colsum(
    scores: np.ndarray,
    offsets: np.ndarray,
    temperature: float,
    *,
    threads: int | None = None,
    backend: Backend | None = None,
) -> np.ndarray:
    """Column sums of ``softmax(scores / temperature + offsets)`` taken row by row.

    Args:
        scores: (N, C) float16, float32 or float64; it may be read-only, such as a mapped file. -inf is allowed, but
            not a row of nothing else. C++ takes C-contiguous float16 and float32, NumPy the rest.
        offsets: (C,) float64; -inf takes a column out.
        temperature: positive.
        threads: at most so many; None for one a core. Results are the same bits with any number.
        backend: ``native`` (C++) or ``plain`` (NumPy); None for the faster one that is there.

    Returns:
        (C,) float64 sums; they add up to N.

    Raises:
        ValueError: shapes or types do not fit, or a row has no finite entry under the offsets.
    """
    return softmax_colsum_dual(scores, offsets, temperature, threads=threads, backend=backend)[0]


def softmax_colsum_dual(
    scores: np.ndarray,
    offsets: np.ndarray,
    temperature: float,
    *,
    threads: int | None = None,
    backend: Backend | None = None,
) -> tuple[np.ndarray, float]:
    """As `softmax_colsum`, and the sum of the rows' log-normalisers ``log sum_j exp(scores_j / temperature + o_j)``."""
    check(scores, offsets, temperature)
    if not takes_native(scores, backend):
        return softmax_colsum_plain.softmax_colsum_dual(scores, offsets, temperature)
    sums, normalisers, empty = _native.softmax_colsum(
        scores=scores, offsets=as_doubles(offsets), temperature=temperature, threads=threads or available_cores()
    )
    if empty >= 0:
        raise softmax_colsum_plain.empty_row(empty)
    return sums, normalisers


def native_there() -> bool:
    """Whether the native kernels were built."""
    return _native is not None


def takes_native(scores: np.ndarray, backend: Backend | None) -> bool:
    """Whether C++ is to do the work.

    Raises:
        ValueError: it is asked for and cannot.
    """
    able = _native is not None and scores.dtype in (np.float16, np.float32) and scores.flags.c_contiguous
    if backend == "native" and not able:
        raise ValueError(
            "the native kernels take C-contiguous float16 or float32 scores"
            if _native is not None
            else "the native kernels were not built; `fasttrain doctor` says what they need"
        )
    return able and backend != "plain"


def as_doubles(offsets: np.ndarray) -> np.ndarray:
    """(C,) offsets as C++ takes them."""
    return np.ascontiguousarray(offsets, np.float64)


def check(scores: np.ndarray, offsets: np.ndarray, temperature: float) -> None:
    """Raise a ValueError if arguments do not fit together."""
    if scores.ndim != 2 or scores.dtype not in (np.float16, np.float32, np.float64) or not scores.shape[1]:
        raise ValueError(f"scores are (N, C) float16, float32 or float64, not {scores.shape} {scores.dtype}")
    if offsets.shape != scores.shape[1:]:
        raise ValueError(f"offsets are one a column, ({scores.shape[1]},), not {offsets.shape}")
    if np.isnan(offsets).any() or np.isposinf(offsets).any():
        raise ValueError("offsets are numbers or -inf")
    if not 0 < temperature < np.inf:
        raise ValueError(f"the temperature must be above 0, not {temperature}")
