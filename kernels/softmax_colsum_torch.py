"""`softmax_colsum` through torch, for score matrices that are to live on a GPU."""

import numpy as np
import torch

# Entries of a row block: three copies of it in float32 fit beside the matrix on any GPU.
BLOCK_ENTRIES = 1 << 26


class TorchColumnSums:
    """Keeps a score matrix on a device; each call is one pass over it.

    Args:
        scores: (N, C) float16 or float32, copied to `device` once in its own type.
        device: name of a torch device, such as ``cuda`` or ``cpu``.
    """

    def __init__(self, scores: np.ndarray, device: str) -> None:
        self._scores = torch.tensor(scores, device=device)

    def __call__(self, offsets: np.ndarray, temperature: float) -> np.ndarray:
        """As `fasttrain.kernels.softmax_colsum.softmax_colsum`: (C,) float64 sums, exponentials in float32."""
        columns = self._scores.shape[1]
        shift = torch.tensor(offsets, dtype=torch.float32, device=self._scores.device)
        sums = torch.zeros(columns, dtype=torch.float64, device=self._scores.device)
        for block in self._scores.split(max(1, BLOCK_ENTRIES // columns)):
            plan = torch.softmax(torch.add(shift, block, alpha=1 / temperature), dim=1)
            sums += plan.sum(dim=0, dtype=torch.float64)
        return sums.cpu().numpy()
