"""`finish` of the device stage on a CPU, in C++: jitter, normalisation and cast in one pass."""

import numpy as np
import torch
from torch import Tensor

from fasttrain.kernels.pixels import Jitter, Target, active

try:
    from fasttrain.kernels import _native
except ImportError:  # installed without a compiler or libjpeg's headers
    _native = None  # type: ignore[assignment]

_NAMES = {torch.float32: "float32", torch.float16: "float16", torch.bfloat16: "bfloat16"}
_NOTHING = 4  # the number behind the last operation


def available() -> bool:
    """Whether the native extension was built."""
    return _native is not None


def finish(pixels: Tensor, target: Target, jitter: Jitter | None, out: Tensor, threads: int) -> None:
    """Fill `out` (B, H, W, 3) of the target's dtype from (B, H, W, 3) uint8, a thread a sample; the GIL is released."""
    operations = factors = None
    if jitter is not None:
        operations = np.where(active(jitter), jitter.order, _NOTHING).astype(np.int32)
        factors = np.take_along_axis(jitter.factors, jitter.order, 1).astype(np.float32)
    _native.finish(
        pixels=pixels.contiguous().numpy(),
        out=out.view(torch.int16).numpy() if target.dtype != torch.float32 else out.numpy(),
        dtype=_NAMES[target.dtype],
        scale=target.scale,
        shift=target.shift,
        operations=operations,
        factors=factors,
        threads=threads,
    )
