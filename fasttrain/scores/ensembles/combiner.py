"""Where scores are combined: on the CPU without torch, or on a CUDA device."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fasttrain.base.errors import ScoresError
from fasttrain.kernels.combine import Combined, combine


def combiner(device: str) -> Callable[..., Combined]:
    """`fasttrain.kernels.combine.combine` for ``cpu``, and what does the same on ``cuda``.

    Raises:
        ScoresError: there is no such device.
    """
    if device == "cpu":
        return combine
    import torch

    if not torch.cuda.is_available():
        raise ScoresError("torch sees no CUDA device on this machine; leave out --device cuda")
    return on_device(device)


def on_device(device: str) -> Callable[..., Combined]:
    """The ensemble through torch on one of its devices. Rows are gathered before they go there, not whole tables."""
    from fasttrain.kernels.combine_torch import TorchCombine

    kernel = TorchCombine(device)

    def combine_there(
        tables: Sequence[np.ndarray], *arguments: Any, rows: Sequence[np.ndarray | None], **options: Any
    ) -> Combined:
        gathered = [table if row is None else table[row] for table, row in zip(tables, rows, strict=True)]
        return kernel(gathered, *arguments, **options)

    return combine_there
