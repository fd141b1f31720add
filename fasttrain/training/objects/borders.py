"""Which side of the maps is the objects': photographers put things into the middle.

The losses treat both sides alike, so that maps may come out with either sign. The published program looks once, after
1,000 steps of the first epoch, whether the border's mean is above 0.5. Here the border is compared with what lies
within it, over all images of an epoch; the last epoch decides.
"""

from typing import Any

import torch
from torch import Tensor

from fasttrain.base.distributed import sum_over_ranks
from fasttrain.models.objects.opened import Shows

BORDER = 1 / 7  # of a side: 4 of the 28 places that 448 pixels have
LEAST_DIFFERENCE = 0.05  # below it, the maps hardly tell the middle from the border


class Borders:
    """Means over an epoch's maps, at their border and within. Adding to them makes no device wait.

    Attributes:
        figures: of the last epoch that was taken; empty before.
    """

    def __init__(self) -> None:
        self._sums: Tensor | None = None
        self.figures: dict[str, float] = {}

    @torch.no_grad()
    def add(self, maps: Tensor, valid: Tensor) -> None:
        """Take up the maps (B, 1, h, w) of a batch, but not of samples that are not `valid` ((B,) bool)."""
        at_border = border_of(maps.shape[-2], maps.shape[-1], maps.device)
        flat, known = maps.detach().flatten(1).double(), valid.double()
        sums = torch.stack([(flat[:, part].mean(1) * known).sum() for part in (at_border, ~at_border)] + [known.sum()])
        self._sums = sums if self._sums is None else self._sums + sums

    def take(self) -> dict[str, float]:
        """``border`` and ``inside``, means over all ranks since the last call; all ranks call it."""
        if self._sums is None:
            return {}
        border, inside, count = sum_over_ranks(self._sums).tolist()
        self._sums = None
        if count:
            self.figures = {"border": border / count, "inside": inside / count}
        return self.figures

    @property
    def shows(self) -> Shows | None:
        """What lies where maps are high, by the last epoch; None before there was one."""
        if not self.figures:
            return None
        return "background" if self.figures["border"] > self.figures["inside"] else "objects"

    def described(self) -> str:
        """A line about the last epoch."""
        border, inside = self.figures["border"], self.figures["inside"]
        told = f"maps: {border:.3f} at the border, {inside:.3f} within, so high values are {self.shows}"
        if abs(border - inside) < LEAST_DIFFERENCE:
            told += "; warning: the two hardly differ, look at the masks before you use them"
        return told

    def state_dict(self) -> dict[str, Any]:
        """Sums of this rank so far, and the last epoch's figures."""
        return {"sums": None if self._sums is None else self._sums.cpu(), "figures": self.figures}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """Go on from where `state_dict` was asked for."""
        self._sums = None if state["sums"] is None else state["sums"].to(device)
        self.figures = dict(state["figures"])


def border_of(height: int, width: int, device: torch.device) -> Tensor:
    """(height * width,) bool: the places of a map that lie at its border."""
    inside = torch.zeros((height, width), dtype=torch.bool, device=device)
    tall, wide = (max(1, round(BORDER * side)) for side in (height, width))
    inside[tall : height - tall, wide : width - wide] = True
    return ~inside.flatten()
