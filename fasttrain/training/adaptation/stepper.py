"""A step of adaptation: source, teacher, mixture. Their gradients are added up before the optimizer's step."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from fasttrain.base.process import rank
from fasttrain.beton_build.mask_info import IGNORE
from fasttrain.inference.forward import autocast
from fasttrain.loading.batch import Batch, MaskedBatch
from fasttrain.models.segmentation import Segmenter
from fasttrain.training.adaptation.class_mix import Mixed, choose_classes, paste
from fasttrain.training.adaptation.confidence import pseudo_labels
from fasttrain.training.adaptation.feature_distance import downscaled, feature_distance, of_classes
from fasttrain.training.adaptation.observed import Observed
from fasttrain.training.adaptation.pairs import PairedBatch
from fasttrain.training.adaptation.settings import AdaptationSettings
from fasttrain.training.adaptation.strong import StrongAugmentation
from fasttrain.training.monitor import LaggedLoss
from fasttrain.training.segmentation.losses import SegmentationCriterion
from fasttrain.training.taught_stepper import TaughtStepper


class WithFeatures(nn.Module):
    """What is trained, as DDP wants it: one call gives the logits (B, C, H, W) and the backbone's last features."""

    def __init__(self, segmenter: Segmenter) -> None:
        super().__init__()
        self.segmenter = segmenter

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) in."""
        height, width = images.shape[-2:]
        features = self.segmenter.forward_features(images)
        return self.segmenter.decode(features, (height, width)), features[-1]


class FrozenFeatures:
    """The last features of the backbone as it was, in evaluation mode.

    Args:
        segmenter: with the weights that are to be remembered; they are copied.
    """

    def __init__(self, segmenter: Segmenter) -> None:
        self.module = copy.deepcopy(segmenter).eval().requires_grad_(False)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """(B, D, h, w) of images (B, 3, H, W)."""
        return self.module.forward_features(images)[-1]


@dataclass(frozen=True)
class Seen:
    """What a step has learned from, for pictures of it.

    Attributes:
        step: counted over the run, from 0.
        pair: source and target.
        pseudo: (B, H, W) uint8 labels of the teacher.
        share: (B,) of confident pixels.
        mixed: before the strong augmentation.
        strong: (B, 3, H, W) mixed images after it.
    """

    step: int
    pair: PairedBatch
    pseudo: Tensor
    share: Tensor
    mixed: Mixed
    strong: Tensor


@dataclass
class AdaptationStepper(TaughtStepper):
    """Model, teacher and what belongs to a step. Batches are `PairedBatch`es, the called model is a `WithFeatures`.

    The loss is that of the source, plus the distance of features, plus the weighted loss of mixed images (Hoyer et al.,
    "DAFormer", CVPR 2022, eq. 2 to 8), each a mean over the images of a process.

    Attributes:
        settings: of the adaptation.
        things: classes that the distance of features is measured on. They are compared with those of the weights that
            the model is made with.
        strong: augmentation of mixed images.
        show: is called with what a step has seen, every ``settings.pictures`` steps; None for nobody.
    """

    settings: AdaptationSettings = field(default_factory=AdaptationSettings)
    things: Sequence[int] = ()
    strong: StrongAugmentation | None = None
    show: Callable[[Seen], None] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        assert isinstance(self.module, Segmenter) and isinstance(self.criterion, SegmentationCriterion)
        self.frozen = FrozenFeatures(self.module) if self.settings.feature_distance.weight else None
        self.observed = Observed(self.module.num_classes, self.device)
        self._global_step = 0

    def step(self, batch: Batch, global_step: int, loss_sum: LaggedLoss) -> None:
        """The teacher follows the student, then the student learns."""
        assert isinstance(batch, PairedBatch)
        self._global_step = global_step
        self.mean_teacher.update(self.module, global_step)
        self._require_deterministic(batch.target.images)
        super().step(batch, global_step, loss_sum)

    def _backward(self, batch: Batch, targets: Tensor | None, samples: Tensor, averaged: bool = True) -> Tensor:
        """Add the gradients of all parts; the summed loss of the batch's samples, 0-dim."""
        assert isinstance(batch, PairedBatch)
        settings, target, step = self.settings, batch.target, self._global_step
        first = rank() * len(batch.images)
        with autocast(self.device, self.amp):
            answers = self.mean_teacher(target.images)
        pseudo, share = pseudo_labels(answers, settings.threshold, target.masks != IGNORE)
        with self._exchange(False):  # the gradients of all parts are exchanged together
            source, distance = self._source_losses(batch, self.model)
            learned = source + settings.feature_distance.weight * distance
            self.scaler.scale(learned).backward()
        chosen = choose_classes(batch.masks, self.seed, step, first)
        mixed = paste(batch.images, batch.masks, target.images, pseudo, share, chosen)
        strong = mixed.images if self.strong is None else self.strong(mixed.images, step, first)
        with self._exchange(averaged):
            with autocast(self.device, self.amp):
                logits, _ = self.model(strong)
            mix = self._loss_of(logits, mixed.labels, torch.ones_like(batch.valid), mixed.weights)
            self.scaler.scale(settings.weight * mix).backward()
        pasted = torch.where(mixed.pasted, mixed.labels, IGNORE)
        self.observed.add((source, distance, mix, share.mean()), pseudo, pasted)
        if self.show is not None and settings.pictures and step % settings.pictures == 0:
            self.show(Seen(step, batch, pseudo, share, mixed, strong))
        return (learned + settings.weight * mix).detach() * samples

    def _source_losses(self, batch: MaskedBatch, model: nn.Module) -> tuple[Tensor, Tensor]:
        """Loss of the labels, and distance of features, both 0-dim."""
        with autocast(self.device, self.amp):
            logits, features = model(batch.images)
            frozen = None if self.frozen is None else self.frozen(batch.images)
        loss = self._loss_of(logits, batch.masks, batch.valid)
        if frozen is None:
            return loss, torch.zeros_like(loss)
        size = (features.shape[-2], features.shape[-1])
        labels = downscaled(batch.masks, size, logits.shape[1], self.settings.feature_distance.majority)
        return loss, feature_distance(features, frozen, of_classes(labels, self.things))

    def _loss_of(self, logits: Tensor, masks: Tensor, valid: Tensor, weights: Tensor | None = None) -> Tensor:
        """Mean over the images, 0-dim."""
        assert isinstance(self.criterion, SegmentationCriterion)
        return self.criterion(logits, masks, valid, pixel_weights=weights).sum() / valid.sum().clamp(min=1)

    def _losses(self, batch: Batch, targets: Tensor | None = None, bare: bool = False) -> Tensor:
        """Of the source, to try what fits into the memory: the other parts of a step take no more at a time."""
        assert isinstance(batch, MaskedBatch) and isinstance(self.module, Segmenter)
        loss, distance = self._source_losses(batch, WithFeatures(self.module) if bare else self.model)
        return (loss + self.settings.feature_distance.weight * distance)[None]

    # --- what is kept of it -----------------------------------------------------------------------------------------

    def take_figures(self) -> dict[str, Any]:
        """See `Observed.figures`; the next ones are of the steps from now on."""
        figures = self.observed.figures()
        self.observed.clear()
        return figures

    def rank_state(self) -> dict[str, Any]:
        """The sums of the epoch so far."""
        return self.observed.state_dict()

    def load_rank_state(self, state: dict[str, Any]) -> None:
        """Go on with them."""
        self.observed.load_state_dict(state)
