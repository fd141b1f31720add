"""A step of co-teaching: student and teacher see both versions of each image, and each version teaches the other."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from fasttrain.inference.forward import autocast
from fasttrain.loading.batch import Batch, all_views
from fasttrain.training.co_teacher.observed import LossParts
from fasttrain.training.co_teacher.partners import with_partners_amplitudes
from fasttrain.training.co_teacher.settings import CoTeacherSettings
from fasttrain.training.distillation import divergence
from fasttrain.training.monitor import LaggedLoss
from fasttrain.training.taught_stepper import TaughtStepper


@dataclass
class CoTeacherStepper(TaughtStepper):
    """Model, teacher and what belongs to a step. Batches are those of a `PartneredLoader`.

    The loss of an image x, with amplitudes of its partner's x', is (Xu et al., CVPR 2021, arXiv 2105.11120, eq. 6 to 9)
    ``CE(x) / 2 + CE(x') / 2 + w (KL(T(x) || S(x')) + KL(T(x') || S(x)))``, T and S being what teacher and student say
    at a temperature. Where the run mixes images, x and x' are mixed alike, so that both show the same.

    Attributes:
        settings: of the co-teacher.
        mean, std: that the images were normalised by.
    """

    images_a_sample: ClassVar[int] = 2

    settings: CoTeacherSettings = field(default_factory=CoTeacherSettings)
    mean: Sequence[float] = (0.0, 0.0, 0.0)
    std: Sequence[float] = (1.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.observed = LossParts(self.device)
        self._weight = 0.0

    def step(self, batch: Batch, global_step: int, loss_sum: LaggedLoss) -> None:
        """The student learns, then the teacher follows it."""
        self._weight = self.settings.weight_of(self.schedule.table.epoch_of(global_step))
        self._require_deterministic(batch.images)
        super().step(batch, global_step, loss_sum)
        self.mean_teacher.update(self.module, global_step)

    def _prepared(self, batch: Batch, global_step: int) -> tuple[Batch, Tensor | None]:
        """Two views of each image, with its own amplitudes and with some of its partner's, mixed by the same draws."""
        moved = with_partners_amplitudes(batch, self.settings.ratio, self.mean, self.std, self.seed, global_step)
        other, _ = super()._prepared(batch._replace(images=moved), global_step)
        first, targets = super()._prepared(batch, global_step)
        return first._replace(images=torch.cat([first.images, other.images]).unflatten(0, (2, -1))), targets

    def _losses(self, batch: Batch, targets: Tensor | None = None, bare: bool = False) -> Tensor:
        """(B,) float32, 0 for masked samples; of a batch with two views, as `_prepared` makes it."""
        images, labels = all_views(batch.images), batch.labels.clamp(min=0)
        with autocast(self.device, self.amp):
            logits = (self.module if bare else self.model)(images)
            taught = self.mean_teacher(images).unflatten(0, (2, -1))
        # A head may give several rows for each image: (rows of an image, views, B, C).
        rows = logits.unflatten(0, (-1, 2, len(labels)))
        original, moved = (self.criterion(rows[:, view].flatten(0, 1), labels, batch.valid, targets) for view in (0, 1))
        temperature, student = self.settings.temperature, rows[0]
        consistency = divergence(student[1], taught[0], temperature) + divergence(student[0], taught[1], temperature)
        if not self._graph_unknown:
            self.observed.add(batch.valid, original, moved, consistency)
        return torch.where(batch.valid, 0.5 * original + 0.5 * moved + self._weight * consistency, 0.0)

    # --- what is kept of it -----------------------------------------------------------------------------------------

    def take_figures(self) -> dict[str, Any]:
        """The parts of the loss, a sample's mean of the epoch, and the weight of the consistency."""
        return {**self.observed.take(), "consistency_weight": self._weight}

    def rank_state(self) -> dict[str, Any]:
        """The sums of the epoch so far."""
        return {**self.observed.state_dict(), "weight": self._weight}

    def load_rank_state(self, state: dict[str, Any]) -> None:
        """Go on with them."""
        self._weight = state["weight"]
        self.observed.load_state_dict(state)
