"""Losses of several views of a sample."""

import torch.nn.functional as F
from torch import Tensor

from fasttrain.training.losses.base import Loss


class JensenShannon(Loss):
    """Cross-entropy of the first view, and how far the predictions of all three lie apart (AugMix: Hendrycks et al.,
    ICLR 2020, arXiv 1912.02781).

    ``CE(z_0) + alpha / 3 sum_v KL(p_v || m)`` with the mean ``m`` of the three, not below 1e-7.
    """

    views = 3

    def __init__(self, alpha: float, smoothing: float) -> None:
        self.alpha, self.smoothing = alpha, smoothing

    def __call__(self, logits: Tensor, labels: Tensor, soft: Tensor | None) -> Tensor:
        clean = F.cross_entropy(
            logits[0],
            labels if soft is None else soft,
            reduction="none",
            label_smoothing=self.smoothing if soft is None else 0.0,
        )
        logs = F.log_softmax(logits, 2)
        probabilities = logs.exp()
        mixture = probabilities.mean(0).clamp(1e-7, 1).log()
        divergence = (probabilities * (logs - mixture)).sum(2).mean(0)
        return clean + self.alpha * divergence
