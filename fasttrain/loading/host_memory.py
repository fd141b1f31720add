"""Memory of batches on the CPU, used again.

Fresh memory of this size comes from the system page by page, and is cleared by it each time: for float32 batches that
took as long as a tenth of the decoding.
"""

import math
import weakref
from collections import deque

import numpy as np
import torch
from torch import Tensor

_KEPT = 4  # blocks that wait for their next use


class HostMemory:
    """Hands out tensors, and takes their memory back when nothing refers to it any more."""

    def __init__(self) -> None:
        self._free: deque[np.ndarray] = deque(maxlen=_KEPT)

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """A tensor with undefined content."""
        size = math.prod(shape) * dtype.itemsize
        block = self._take(size)
        # The tensor's storage holds this very view, and every view of the tensor holds the storage: when the view goes,
        # the block is nobody's.
        view = block[:size]
        weakref.finalize(view, self._free.append, block).atexit = False
        return torch.from_numpy(view).view(dtype).view(shape)

    def _take(self, size: int) -> np.ndarray:
        while self._free:
            try:
                block = self._free.popleft()
            except IndexError:  # another thread was faster
                break
            if len(block) == size:
                return block
        return np.empty(size, np.uint8)
