"""The losses of class-agnostic activation maps (Xie et al., arXiv 2203.13505, section 3).

Cosines between the images' mean features on one side of their maps and on the other: those of the same side should be
alike, and those of different sides should not.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fasttrain.base.process import world_size
from fasttrain.models.across_ranks import of_all_ranks
from fasttrain.models.objects.mapper import ObjectMapper, Sides
from fasttrain.training.objects.borders import Borders
from fasttrain.training.objects.settings import ContrastSettings


def cosines(rows: Tensor, columns: Tensor, least: float, most: float) -> Tensor:
    """(R, C) of features (R, D) and (C, D)."""
    return (F.normalize(rows) @ F.normalize(columns).T).clamp(least, most)


def similar(alike: Tensor, known: Tensor, alpha: float) -> Tensor:
    """SimMaxLoss, row by row: ``-log s`` of each pair, times ``exp(-alpha * rank)``.

    The rank counts from the most alike of a row on, which has -1 (as a rule the image itself), the next one 0. Pairs
    that are not alike may be of different classes, and count less.

    Args:
        alike: (R, C) cosines.
        known: (C,) bool, images that count.

    Returns:
        (R,) means over the images that count.
    """
    order = torch.where(known, alike, -1.0).argsort(dim=1, descending=True, stable=True)
    rank = order.argsort(1) - 1
    losses = -alike.log() * torch.exp(-alpha * rank)
    return _mean(losses, known)


def unlike(alike: Tensor, known: Tensor) -> Tensor:
    """SimMinLoss, row by row: ``-log(1 - s)`` of each pair, (R,) means over the images that count."""
    return _mean(-torch.log1p(-alike), known)


def _mean(losses: Tensor, known: Tensor) -> Tensor:
    return torch.where(known, losses, 0.0).sum(1) / known.sum().clamp(min=1)


class ObjectCriterion:
    """Both sides apart, each by itself together, and a small map; in float32, whatever autocast says.

    Each image is compared with those of all ranks, so that the loss is that of the whole batch.

    Args:
        mapper: says whether other ranks are waiting to be compared with.

    Attributes:
        borders: of the maps that it has seen.
    """

    def __init__(self, settings: ContrastSettings, mapper: ObjectMapper) -> None:
        self._settings, self._mapper = settings, mapper
        self.borders, self._collecting = Borders(), True

    def __call__(self, sides: Any, labels: Tensor, valid: Tensor, soft: Tensor | None = None) -> Tensor:
        """(B,) float32, 0 for samples that are not valid; `sides` is what `ObjectMapper` gives, labels mean nothing."""
        assert isinstance(sides, Sides)
        if self._collecting:
            self.borders.add(sides.maps, valid)
        with torch.autocast(sides.maps.device.type, enabled=False):
            losses = self._contrast(sides, valid) + self._settings.area * sides.maps.float().mean((1, 2, 3))
        return torch.where(valid, losses, 0.0)

    def _contrast(self, sides: Sides, valid: Tensor) -> Tensor:
        settings = self._settings
        one, other, known = sides.one, sides.other, valid
        if self._mapper.across_ranks and world_size() > 1:
            one, other, known = of_all_ranks(one), of_all_ranks(other), of_all_ranks(valid.to(one.dtype)) > 0
        bounds = settings.least, settings.most
        return (
            similar(cosines(sides.one, one, *bounds), known, settings.alpha)
            + similar(cosines(sides.other, other, *bounds), known, settings.alpha)
            + unlike(cosines(sides.other, one, *bounds), known)
        )

    def end_step(self) -> None:
        """Nothing is left to do."""

    @contextmanager
    def unobserved(self) -> Iterator[None]:
        """Inside, maps do not enter `borders`."""
        self._collecting = False
        try:
            yield
        finally:
            self._collecting = True

    def state_dict(self) -> dict[str, Any]:
        """Nothing: what it has seen is each rank's own."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing was stored."""
