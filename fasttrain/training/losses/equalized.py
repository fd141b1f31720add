"""Softmax-EQL: classes are weighed by the gradients that they have had so far."""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from fasttrain.base.distributed import sum_over_ranks
from fasttrain.training.losses.base import Facts, Loss

Indicator = Literal["pos", "neg", "pos_and_neg"]


class EqualizedSoftmax(Loss):
    """Softmax equalization loss (Tan et al., "The Equalization Losses", TPAMI 2023, arXiv 2210.05566).

    Cross-entropy with the logits of other classes shifted by ``tau log(g_j / g_y)``, where `g` is what a class has had
    of gradient: over all steps the sums of ``|dL / dz_ic|`` for the samples of the class (``pos``), for the others
    (``neg``), or ``pos / neg + neg``. L is the mean loss of a step's batch over all ranks; g is not below `eps`.

    The gradients are those that arrive at the logits in the backward pass, freed of what weights, scaling against
    underflow, and parts of a batch have multiplied them by. They count from the next step on.

    Attributes:
        collecting: whether backward passes are taken note of.
    """

    def __init__(self, facts: Facts, tau: float, eps: float, indicator: Indicator, smoothing: float) -> None:
        self.tau, self.eps, self.indicator, self.smoothing = tau, eps, indicator, smoothing
        self.collecting = True
        # float64: after a million steps a step's share would be lost in float32.
        self.positive = torch.zeros(facts.num_classes, dtype=torch.float64, device=facts.device)
        self.negative = torch.zeros_like(self.positive)
        # Of this step and rank: both sums one after the other, and how many samples are in them.
        self._sums = torch.zeros(2 * facts.num_classes + 1, dtype=torch.float64, device=facts.device)
        self._shift = self._make_shift()

    def __call__(self, logits: Tensor, labels: Tensor, soft: Tensor | None) -> Tensor:
        own = logits[0]  # a tensor of its own, whose gradient is that of this loss alone
        losses = F.cross_entropy(own + self._shift, labels, reduction="none", label_smoothing=self.smoothing)
        if self.collecting and losses.requires_grad:
            self._watch(own, labels, losses)
        return losses

    def end_step(self) -> None:
        sums = sum_over_ranks(self._sums)
        positive, negative = (sums[:-1] / sums[-1].clamp(min=1)).chunk(2)
        self.positive += positive
        self.negative += negative
        self._sums.zero_()
        self._shift = self._make_shift()

    def state_dict(self) -> dict[str, Any]:
        return {"positive": self.positive.cpu(), "negative": self.negative.cpu()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.positive.copy_(state["positive"])
        self.negative.copy_(state["negative"])
        self._shift = self._make_shift()

    def _watch(self, logits: Tensor, labels: Tensor, losses: Tensor) -> None:
        upstream: list[Tensor] = []
        losses.register_hook(lambda gradient: upstream.append(gradient))

        def collect(gradient: Tensor) -> None:
            factor = upstream.pop()[:, None]  # what each sample's loss was multiplied by; 0 where it does not count
            sizes = torch.where(factor != 0, gradient / factor, 0.0).abs().double()
            belongs = labels[:, None] == torch.arange(len(self.positive), device=labels.device)
            positive = (sizes * belongs).sum(0)
            counted = (factor != 0).sum().double()[None]
            self._sums += torch.cat([positive, sizes.sum(0) - positive, counted])

        logits.register_hook(collect)

    def _make_shift(self) -> Tensor:
        """(C,) float32. The part of the true class is the same for all classes, and means nothing to a softmax."""
        gradients = {
            "pos": self.positive,
            "neg": self.negative,
            "pos_and_neg": self._ratio() + self.negative,
        }[self.indicator]
        return (self.tau * gradients.clamp(min=self.eps).log()).float()

    def _ratio(self) -> Tensor:
        """``pos / neg``, 1 before the first step."""
        seen = (self.positive + self.negative) > 0
        return torch.where(seen, self.positive / (self.negative + 1e-10), 1.0)
