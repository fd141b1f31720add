"""Binary cross-entropy: each class for itself."""

import torch.nn.functional as F
from torch import Tensor

from fasttrain.training.losses.base import Loss, shares


class BinaryCrossEntropy(Loss):
    """Sigmoid cross-entropy over all classes (Wightman et al., "ResNet strikes back", arXiv 2110.00476; timm's).

    Args:
        smoothing: of labels; soft targets are taken as they are.
        threshold: targets above it become 1, others 0; None leaves them.
        sum_classes: the sum over the classes instead of the mean.
    """

    def __init__(self, smoothing: float, threshold: float | None, sum_classes: bool) -> None:
        self.smoothing, self.threshold, self.sum_classes = smoothing, threshold, sum_classes

    def __call__(self, logits: Tensor, labels: Tensor, soft: Tensor | None) -> Tensor:
        scores = logits[0]
        targets = shares(labels, soft, scores.shape[1], self.smoothing)
        if self.threshold is not None:
            targets = (targets > self.threshold).float()
        losses = F.binary_cross_entropy_with_logits(scores, targets, reduction="none")
        return losses.sum(1) if self.sum_classes else losses.mean(1)
