"""MoCo v2: a query of one view, the key of another among a queue of earlier ones.

He et al., "Momentum Contrast", arXiv 1911.05722; Chen et al., "Improved Baselines with Momentum Contrastive Learning",
arXiv 2003.04297.
"""

from copy import deepcopy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, distributed, nn

from fasttrain.base.process import rank, world_size
from fasttrain.training.losses.base import Loss
from fasttrain.training.losses.criterion import Criterion
from fasttrain.training.pretraining.features import FeatureStatistics
from fasttrain.training.pretraining.settings import MocoSettings


class MomentumContrast(nn.Module):
    """Two encoders with projectors; the second follows the first as a moving average and learns nothing by itself.

    Shuffle-BN: batch normalisation of the second encoder must not see the samples together that the first one sees
    together, or the statistics tell which key belongs to which query. Samples are dealt anew over the ranks for it;
    a process by itself passes its batch through both encoders in groups, and deals the samples anew over these.

    Args:
        encoder: gives features (B, D).
        features: D.
        groups: of a process's batch that are normalised apart.

    Attributes:
        across_ranks: whether samples are dealt over all ranks.
        statistics: of the queries.
    """

    def __init__(self, encoder: nn.Module, features: int, settings: MocoSettings, groups: int) -> None:
        super().__init__()
        self.encoder, self.projector = encoder, _projector(features, settings)
        self.key_encoder, self.key_projector = deepcopy(self.encoder), deepcopy(self.projector)
        for parameter in (*self.key_encoder.parameters(), *self.key_projector.parameters()):
            parameter.requires_grad_(False)
        self.dim, self.momentum, self.groups, self.across_ranks = settings.dim, settings.momentum, groups, True
        self.statistics = FeatureStatistics()

    def no_weight_decay(self) -> set[str]:
        """What the encoder excludes."""
        own = getattr(self.encoder, "no_weight_decay", set)
        return {f"encoder.{name}" for name in own()}

    def forward(self, images: Tensor) -> Tensor:
        """(2 * B, 3, H, W), all first views first, to (B, 2 * dim) float32: queries, and beside them their keys."""
        self._follow_modes()
        first, second = images.chunk(2)
        queries = F.normalize(self._grouped(self.encoder, self.projector, first).float())
        with torch.no_grad():
            keys = F.normalize(self._keys(second).float())
        if self.training:
            self.statistics.add(queries)
        return torch.cat([queries, keys], 1)

    def _follow_modes(self) -> None:
        """Normalise keys as queries: by the batch, or by stored statistics where the first encoder's layer is frozen.
        (None of the second one's parameters learns, so that all of its layers would pass for frozen.)"""
        for follower, leader in zip(self.key_encoder.modules(), self.encoder.modules(), strict=True):
            follower.training = leader.training

    def _grouped(self, encoder: nn.Module, projector: nn.Module, images: Tensor) -> Tensor:
        groups = max(1, min(self.groups, len(images) // 2))
        return torch.cat([projector(encoder(part)) for part in images.chunk(groups)])

    @torch.compiler.disable  # what goes over the ranks is not for a compiler
    def _keys(self, images: Tensor) -> Tensor:
        """(B, dim) of this rank's images, which were in other company when they were made."""
        if not (self.across_ranks and world_size() > 1):
            order = torch.randperm(len(images), device=images.device)
            keys = self._grouped(self.key_encoder, self.key_projector, images[order])
            return torch.empty_like(keys).index_copy_(0, order, keys)
        everywhere, own = gathered(images), slice(rank() * len(images), (rank() + 1) * len(images))
        order = torch.randperm(len(everywhere), device=images.device)
        distributed.broadcast(order, 0)
        keys = gathered(self._grouped(self.key_encoder, self.key_projector, everywhere[order[own]]))
        return torch.empty_like(keys).index_copy_(0, order, keys)[own]

    @torch.no_grad()
    def move_keys(self) -> None:
        """Move the second encoder towards the first: ``k := m k + (1 - m) q``."""
        for follower, leader in ((self.key_encoder, self.encoder), (self.key_projector, self.projector)):
            torch._foreach_lerp_(list(follower.parameters()), list(leader.parameters()), 1 - self.momentum)


def _projector(features: int, settings: MocoSettings) -> nn.Module:
    """MoCo v2's head: a hidden layer of as many units as there are features, ReLU, `dim` outputs."""
    return nn.Sequential(nn.Linear(features, features), nn.ReLU(), nn.Linear(features, settings.dim))


def gathered(own: Tensor) -> Tensor:
    """(W * B, …) of each rank's (B, …), in the order of the ranks; no gradients go back."""
    own = own.contiguous()
    if world_size() == 1:
        return own
    parts = [torch.empty_like(own) for _ in range(world_size())]
    distributed.all_gather(parts, own)
    return torch.cat(parts)


class InfoNce(Loss):
    """Cross-entropy of the key among the queue's (van den Oord et al., arXiv 1807.03748).

    Args:
        contrast: its second encoder is moved after each step.
        keys: K, length of the queue, which begins with random ones.
        device: where the queue lies.

    Attributes:
        queue: (K, dim) float32 of length 1, the same on every rank.
        valid: (B,) bool, set for each batch: keys of other samples do not enter the queue.
    """

    def __init__(
        self, contrast: MomentumContrast, temperature: float, keys: int, seed: int, device: torch.device
    ) -> None:
        self._contrast, self._temperature = contrast, temperature
        start = torch.randn(keys, contrast.dim, generator=torch.Generator().manual_seed(seed))
        self.queue, self.pointer = F.normalize(start).to(device), 0
        self.valid: Tensor | None = None
        self._fresh: list[tuple[Tensor, Tensor]] = []

    def __call__(self, logits: Tensor, labels: Tensor, soft: Tensor | None) -> Tensor:
        """(R,) float32; `logits` (1, R, 2 * dim) are what `MomentumContrast` gives, labels mean nothing."""
        queries, keys = logits[0].chunk(2, 1)
        own = (queries * keys).sum(1, keepdim=True)
        others = queries @ self.queue.T
        if self.collecting:
            valid = self.valid if self.valid is not None else torch.ones_like(labels, dtype=torch.bool)
            self._fresh.append((keys.detach(), valid))
        logits = torch.cat([own, others], 1) / self._temperature
        return F.cross_entropy(logits, torch.zeros_like(labels), reduction="none")

    @torch.no_grad()
    def end_step(self) -> None:
        """Put the step's keys of all ranks in place of the oldest ones, and move the second encoder."""
        self._contrast.move_keys()
        if not self._fresh:
            return
        keys = gathered(torch.cat([keys for keys, _ in self._fresh]))[-len(self.queue) :]
        valid = gathered(torch.cat([valid for _, valid in self._fresh]))[-len(self.queue) :]
        places = (torch.arange(len(keys), device=keys.device) + self.pointer) % len(self.queue)
        self.queue[places] = torch.where(valid[:, None], keys, self.queue[places])
        self.pointer = (self.pointer + len(keys)) % len(self.queue)
        self._fresh = []

    def state_dict(self) -> dict[str, Any]:
        """The queue and the place of its oldest key."""
        return {"queue": self.queue.cpu(), "pointer": self.pointer}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with a queue."""
        self.queue.copy_(state["queue"])
        self.pointer = int(state["pointer"])


class ContrastCriterion(Criterion):
    """`InfoNce`, that is told which samples are masked."""

    loss: InfoNce

    def __call__(self, logits: Tensor, labels: Tensor, valid: Tensor, soft: Tensor | None = None) -> Tensor:
        """As `Criterion`."""
        self.loss.valid = valid
        return super().__call__(logits, labels, valid, soft)
