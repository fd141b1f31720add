"""What a run with a co-teacher tells of itself: the parts of its loss."""

from typing import Any

import torch
from torch import Tensor

from fasttrain.base.distributed import sum_over_ranks


class LossParts:
    """Sums over the samples of an epoch, on the device: nothing waits for them before the epoch's end."""

    NAMES = ("loss_original", "loss_amplitudes", "loss_consistency")

    def __init__(self, device: torch.device) -> None:
        self._sums = torch.zeros(len(self.NAMES) + 1, dtype=torch.float64, device=device)

    def add(self, valid: Tensor, *parts: Tensor) -> None:
        """Note a part of a batch.

        Args:
            valid: (B,) bool; of the others nothing counts.
            parts: (B,) each, as in `NAMES`.
        """
        rows = torch.stack([*(part.detach().double() for part in parts), torch.ones_like(parts[0]).double()])
        self._sums += torch.where(valid, rows, 0.0).sum(1)

    def take(self) -> dict[str, Any]:
        """Means over the samples and ranks; the next ones are of what is added from now on."""
        *sums, count = sum_over_ranks(self._sums.clone()).tolist()
        self._sums.zero_()
        return {name: value / max(count, 1) for name, value in zip(self.NAMES, sums, strict=True)}

    def state_dict(self) -> dict[str, Any]:
        """This rank's sums."""
        return {"sums": self._sums.cpu()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self._sums.copy_(state["sums"])
