"""The last pass over a score matrix under column offsets: each row's label, how sure it is, its best classes."""

from dataclasses import dataclass

import numpy as np

from fasttrain.base.process import available_cores
from fasttrain.kernels import assign_plain
from fasttrain.kernels.softmax_colsum import Backend, _native, as_doubles, check, takes_native
from fasttrain.kernels.softmax_colsum_plain import empty_row


@dataclass(frozen=True)
class Assigned:
    """What `assign` finds; *values* are ``scores + temperature * offsets``.

    Attributes:
        label: (N,) int32 column of the largest value; the lowest of equals.
        probability: (N,) float32 of the label in ``softmax(values / temperature)``.
        margin: (N,) float32 largest minus second largest value; inf where no other column is possible.
        log_normaliser: (N,) float64 ``log sum_j exp(values_j / temperature)``.
        top_classes: (N, top) int32 columns of the largest values, descending, the lower of equals first; None if no
            `top` was asked for.
        top_values: (N, top) float32 these values.
    """

    label: np.ndarray
    probability: np.ndarray
    margin: np.ndarray
    log_normaliser: np.ndarray
    top_classes: np.ndarray | None
    top_values: np.ndarray | None


def assign(
    scores: np.ndarray,
    offsets: np.ndarray,
    temperature: float,
    *,
    top: int = 0,
    threads: int | None = None,
    backend: Backend | None = None,
) -> Assigned:
    """One read of the scores; arguments and errors as of `fasttrain.kernels.softmax_colsum.softmax_colsum`.

    Args:
        top: so many best classes of each row, 0 to C.
    """
    check(scores, offsets, temperature)
    if not 0 <= top <= scores.shape[1]:
        raise ValueError(f"the best 0 to {scores.shape[1]} classes can be had, not {top}")
    if takes_native(scores, backend):
        parts = assign_plain.empty(len(scores), top)
        row = _native.assign(
            scores=scores,
            offsets=as_doubles(offsets),
            temperature=temperature,
            threads=threads or available_cores(),
            **parts,
        )
        if row >= 0:
            raise empty_row(row)
    else:
        parts = assign_plain.assign(scores, offsets, temperature, top)
    if not top:
        return Assigned(**{**parts, "top_classes": None, "top_values": None})  # type: ignore[arg-type]
    return Assigned(**parts)
