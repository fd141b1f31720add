"""Seesaw loss."""

import math

import torch.nn.functional as F
from torch import Tensor

from fasttrain.training.losses.base import Facts, Loss

_LEAST = 1e-2  # of the true class's probability, where others are compared with it


class Seesaw(Loss):
    """Seesaw loss (Wang et al., CVPR 2021, arXiv 2008.10032): rarer classes are pushed down less, unless mistaken.

    The logit of class j, for a sample of class y, is shifted by ``log min(1, n_j / n_y)^p`` (mitigation) and
    ``log max(1, q_j / q_y)^q`` (compensation; `q_y` not below 0.01, without gradient). The counts are those of the
    training data; the paper counts what it has seen so far, which comes to them.
    """

    def __init__(self, facts: Facts, mitigation: float, compensation: float, smoothing: float) -> None:
        self.log_counts = facts.counts_for("loss seesaw").log().float()
        self.mitigation, self.compensation, self.smoothing = mitigation, compensation, smoothing

    def __call__(self, logits: Tensor, labels: Tensor, soft: Tensor | None) -> Tensor:
        scores, own = logits[0], labels[:, None]
        logs = F.log_softmax(scores.detach(), 1)
        rarer = (self.log_counts - self.log_counts[own]).clamp(max=0)
        mistaken = (logs - logs.gather(1, own).clamp(min=math.log(_LEAST))).clamp(min=0)
        shifted = scores + self.mitigation * rarer + self.compensation * mistaken
        return F.cross_entropy(shifted, labels, reduction="none", label_smoothing=self.smoothing)
