"""The loss of a batch's pixels."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor

from fasttrain.base.config import Settings
from fasttrain.beton_build.mask_info import IGNORE
from fasttrain.training.losses.weights import RULES


class SegmentationLossSettings(Settings):
    """What is minimised: the cross-entropy of pixels, and the Dice of classes if wanted. Ignored pixels have no part.

    Attributes:
        average: an image's loss is the sum over its pixels divided by how many it has (``all``, as mmsegmentation has
            it), or by how many of them count (``counted``).
        class_weights: ``inverse`` or ``effective`` (number of pixels), a number for each class, or a file of them; a
            pixel's loss counts so many times (see `fasttrain.training.losses.weights`).
        beta: of ``effective``.
        ohem_min_kept: the hardest pixels alone learn, at least so many an image; 0 for all pixels (Shrivastava et al.,
            CVPR 2016, for pixels as mmsegmentation's OHEMPixelSampler has it: chosen from all images that pass through
            the model together).
        ohem_threshold: besides them all whose true class has a probability below it; None for none.
        dice: weight of the Dice loss, 1 - 2 |P T| / (|P| + |T|) on average over the classes of each image (Milletari et
            al., 3DV 2016, without squares).
    """

    average: Literal["all", "counted"] = "all"
    class_weights: str | tuple[float, ...] | None = None
    beta: float = Field(default=0.9999, ge=0, lt=1)
    ohem_min_kept: int = Field(default=0, ge=0)
    ohem_threshold: float | None = Field(default=None, gt=0, le=1)
    dice: float = Field(default=0.0, ge=0)

    @model_validator(mode="after")
    def _all_of_it_counts(self) -> "SegmentationLossSettings":
        if self.ohem_threshold is not None and not self.ohem_min_kept:
            raise ValueError("ohem_threshold means nothing without ohem_min_kept, the pixels an image to keep at least")
        if self.beta != type(self).model_fields["beta"].default and self.class_weights != "effective":
            raise ValueError("beta belongs to class_weights effective; leave it out")
        return self

    @property
    def corrects_frequencies(self) -> bool:
        """Whether it goes by the classes' numbers of pixels."""
        return self.class_weights in RULES


class SegmentationCriterion:
    """Loss of each image of a batch, in float32 whatever autocast says.

    Args:
        weights: (C,) float32 of the classes.
        ignore: value of pixels that have no part.
    """

    def __init__(self, settings: SegmentationLossSettings, weights: Tensor | None = None, ignore: int = IGNORE) -> None:
        self.settings, self.weights, self.ignore = settings, weights, ignore

    def __call__(
        self,
        logits: Tensor,
        masks: Tensor,
        valid: Tensor,
        soft: Tensor | None = None,
        pixel_weights: Tensor | None = None,
    ) -> Tensor:
        """(B,) float32, 0 for images that are not valid or have no pixel that counts.

        Args:
            logits: (B, C, H, W).
            masks: (B, H, W) integers: classes, or what is ignored.
            valid: (B,) bool.
            soft: None; there are no soft targets of pixels.
            pixel_weights: (B, H, W) how often the cross-entropy of each pixel counts.
        """
        assert soft is None
        settings, target = self.settings, masks.long()
        with torch.autocast(logits.device.type, enabled=False):
            scores = logits.float()
            counted = (target != self.ignore) & valid[:, None, None]
            target = torch.where(counted, target, self.ignore)
            pixels = F.cross_entropy(scores, target, reduction="none", ignore_index=self.ignore)
            share = counted.float()
            if settings.ohem_min_kept:
                kept = settings.ohem_min_kept * len(masks)
                share = hard_pixels(pixels.detach(), counted, kept, settings.ohem_threshold).float()
            if self.weights is not None:
                share = share * self.weights[torch.where(counted, target, 0)]
            if pixel_weights is not None:
                share = share * pixel_weights
            number = counted.sum((1, 2)).clamp(min=1) if settings.average == "counted" else counted[0].numel()
            losses = (pixels * share).sum((1, 2)) / number
            if settings.dice:
                losses = losses + settings.dice * dice_loss(scores, target, counted)
            return losses

    def end_step(self) -> None:
        """There is no state."""

    @contextmanager
    def unobserved(self) -> Iterator[None]:
        """There is no state."""
        yield

    def state_dict(self) -> dict[str, Any]:
        """There is no state."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """There is no state."""


def hard_pixels(losses: Tensor, counted: Tensor, kept: int, threshold: float | None) -> Tensor:
    """Bool (B, H, W): the `kept` counted pixels with the largest losses, and all whose true class has a probability
    below `threshold`. Nothing waits for the device.

    With a threshold, the bound is the higher one of it and the probability that `kept` pixels lie below, exclusive; so
    it is in mmsegmentation's OHEMPixelSampler.

    Args:
        losses: (B, H, W) cross-entropy.
        counted: (B, H, W) bool.
    """
    probability = torch.where(counted, (-losses).exp(), 2.0).flatten()
    ordered, places = probability.sort(stable=True)
    if threshold is None:
        chosen = torch.zeros_like(counted.flatten())
        chosen[places[:kept]] = True
        return chosen.view_as(counted) & counted
    last = (counted.sum() - 1).clamp(min=0, max=min(kept, len(ordered) - 1))
    bound = ordered.gather(0, last[None]).clamp(min=threshold)
    return (probability < bound).view_as(counted) & counted


def dice_loss(logits: Tensor, masks: Tensor, counted: Tensor) -> Tensor:
    """(B,) Dice loss on average over the classes that each image's mask holds; 0 where nothing counts.

    Args:
        logits: (B, C, H, W).
        masks: (B, H, W) int64.
        counted: (B, H, W) bool.
    """
    classes = logits.shape[1]
    truth = F.one_hot(torch.where(counted, masks, 0), classes).movedim(3, 1) * counted[:, None]
    predicted = logits.softmax(1) * counted[:, None]
    both, total = (predicted * truth).sum((2, 3)), predicted.sum((2, 3)) + truth.sum((2, 3))
    present = truth.sum((2, 3)) > 0
    losses = torch.where(present, 1 - 2 * both / total.clamp(min=1e-6), 0.0)
    return losses.sum(1) / present.sum(1).clamp(min=1)
