"""Cross-entropy, and its relatives that shift the logits of frequent classes."""

import torch.nn.functional as F
from torch import Tensor

from fasttrain.training.losses.base import Facts, Loss, shares


class CrossEntropy(Loss):
    """Cross-entropy of the logits plus a number for each class.

    Args:
        smoothing: share of a label that is spread over all classes; soft targets are taken as they are.
        shift: (C,) float32, added to the logits.
    """

    def __init__(self, smoothing: float = 0.0, shift: Tensor | None = None) -> None:
        self.smoothing, self.shift = smoothing, shift

    def __call__(self, logits: Tensor, labels: Tensor, soft: Tensor | None) -> Tensor:
        shifted = logits[0] if self.shift is None else logits[0] + self.shift
        if soft is not None:
            return F.cross_entropy(shifted, soft, reduction="none")
        return F.cross_entropy(shifted, labels, reduction="none", label_smoothing=self.smoothing)


class Focal(Loss):
    """Focal loss of softmax probabilities, ``-(1 - p)^gamma log p`` (Lin et al., ICCV 2017, arXiv 1708.02002).

    Soft and smoothed targets: the sum over the classes, by their shares.
    """

    def __init__(self, gamma: float, smoothing: float) -> None:
        self.gamma, self.smoothing = gamma, smoothing

    def __call__(self, logits: Tensor, labels: Tensor, soft: Tensor | None) -> Tensor:
        logs = F.log_softmax(logits[0], 1)
        # Not down to 0, where a power below 1 has no finite slope.
        others = (-logs.expm1()).clamp(min=1e-7)
        targets = shares(labels, soft, logs.shape[1], self.smoothing)
        return -(targets * others**self.gamma * logs).sum(1)


def log_counts(facts: Facts) -> Tensor:
    """(C,) float32 shift of Balanced Softmax, ``log n_c`` (Ren et al., NeurIPS 2020, arXiv 2007.10740)."""
    return facts.counts_for("loss balanced_softmax").log().float()


def log_priors(facts: Facts, tau: float) -> Tensor:
    """(C,) float32 shift of the logit-adjusted loss, ``tau log pi_c`` (Menon et al., ICLR 2021, arXiv 2007.07314)."""
    counts = facts.counts_for("loss logit_adjustment")
    return (tau * (counts / counts.sum()).log()).float()
