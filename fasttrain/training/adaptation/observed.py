"""What an adaptation tells of itself: the parts of its loss, and which classes it has seen."""

from typing import Any

import torch
from torch import Tensor

from fasttrain.base.distributed import sum_over_ranks
from fasttrain.beton_build.mask_info import IGNORE


class Observed:
    """Sums over the steps of an epoch, on the device: nothing waits for them before the epoch's end.

    Args:
        num_classes: C.
    """

    PARTS = ("loss_source", "loss_distance", "loss_mix", "confident")

    def __init__(self, num_classes: int, device: torch.device) -> None:
        self.steps = 0
        self._sums = torch.zeros(len(self.PARTS), dtype=torch.float64, device=device)
        self._pixels = torch.zeros(2, num_classes, dtype=torch.int64, device=device)

    def add(self, parts: tuple[Tensor, ...], pseudo: Tensor, pasted: Tensor) -> None:
        """Note a step.

        Args:
            parts: 0-dim, as in `PARTS`.
            pseudo: (B, H, W) uint8 pseudo-labels.
            pasted: the same: labels that were pasted, 255 elsewhere.
        """
        self.steps += 1
        self._sums += torch.stack([part.detach().double() for part in parts])
        classes = self._pixels.shape[1]
        for row, labels in enumerate((pseudo, pasted)):
            counts = torch.zeros(IGNORE + 1, dtype=torch.int64, device=labels.device)
            flat = labels.flatten().long()
            self._pixels[row] += counts.scatter_add_(0, flat, torch.ones_like(flat))[:classes]

    def figures(self) -> dict[str, Any]:
        """Means over the steps and ranks, and shares of the classes among pseudo-labels and pasted pixels."""
        steps = sum_over_ranks(torch.tensor(float(self.steps), device=self._sums.device))
        sums, pixels = sum_over_ranks(self._sums.clone()), sum_over_ranks(self._pixels.clone())
        shares = pixels / pixels.sum(1, keepdim=True).clamp(min=1)
        named = dict(zip(self.PARTS, (sums / steps.clamp(min=1)).tolist(), strict=True))
        pseudo, pasted = ([round(share, 6) for share in row] for row in shares.tolist())
        return {**named, "pseudo_shares": pseudo, "pasted_shares": pasted}

    def clear(self) -> None:
        """Begin an epoch."""
        self.steps = 0
        self._sums.zero_()
        self._pixels.zero_()

    def state_dict(self) -> dict[str, Any]:
        """This rank's sums."""
        return {"steps": self.steps, "sums": self._sums.cpu(), "pixels": self._pixels.cpu()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self.steps = state["steps"]
        self._sums.copy_(state["sums"])
        self._pixels.copy_(state["pixels"])
