"""Where scores are combined: on the CPU without torch, or on a CUDA device."""

from collections.abc import Callable
from typing import Any

from fasttrain.base.errors import ScoresError
from fasttrain.kernels.combine import combine


def combiner(device: str) -> Callable[..., Any]:
    """`fasttrain.kernels.combine.combine` for ``cpu``, and what does the same on ``cuda``.

    Raises:
        ScoresError: there is no such device.
    """
    if device == "cpu":
        return combine
    import torch

    if not torch.cuda.is_available():
        raise ScoresError("torch sees no CUDA device on this machine; leave out --device cuda")
    raise ScoresError("not yet")
