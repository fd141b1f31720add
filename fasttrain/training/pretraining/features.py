"""Whether features still tell images apart: what collapse looks like, measured while training."""

import torch
import torch.nn.functional as F
from torch import Tensor

from fasttrain.base.distributed import sum_over_ranks

# Below these, features are of little use to a classifier. Short runs come near them in their first epochs.
LEAST_RANK = 1.5
LEAST_SPREAD = 0.05


class FeatureStatistics:
    """Mean and covariance of the features of an epoch, scaled to length 1. Adding to them makes no device wait."""

    def __init__(self) -> None:
        self._samples = 0
        self._sum: Tensor | None = None
        self._products: Tensor | None = None

    @torch.compiler.disable  # sums that outlive a step are not for a compiler
    @torch.no_grad()
    def add(self, features: Tensor) -> None:
        """Take up a batch (B, D)."""
        kind = features.device.type
        with torch.autocast(kind, enabled=False):
            scaled = F.normalize(features.detach().float())
            total, products = scaled.sum(0).double(), (scaled.T @ scaled).double()
        if self._sum is None or self._products is None:
            self._sum, self._products = total, products
        else:
            self._sum += total
            self._products += products
        self._samples += len(features)

    def take(self) -> dict[str, float]:
        """Figures over all ranks since the last call, nothing without samples; all ranks call it.

        Returns:
            - ``feature_std``: standard deviation of a dimension (root of the mean variance), as a share of 1/sqrt(D),
              which features spread evenly over the sphere have (Chen & He, arXiv 2011.10566, section 4.1).
            - ``effective_rank``: exponential of the entropy of the covariance's eigenvalues, 1 to D (Roy & Vetterli,
              EUSIPCO 2007).
            - ``top_variance``: share of the variance along its largest direction.
        """
        if self._sum is None or self._products is None:
            return {}
        samples = float(sum_over_ranks(torch.tensor(float(self._samples), device=self._sum.device)))
        mean = sum_over_ranks(self._sum) / samples
        covariance = sum_over_ranks(self._products) / samples - mean[:, None] * mean
        self._samples, self._sum, self._products = 0, None, None
        return figures_of(covariance.cpu())


def figures_of(covariance: Tensor) -> dict[str, float]:
    """What `FeatureStatistics.take` gives, of a covariance (D, D) float64."""
    values = torch.linalg.eigvalsh(covariance).clamp(min=0)
    variance = values.sum()
    if not torch.isfinite(variance) or variance <= 1e-12:
        return {"feature_std": 0.0, "effective_rank": 1.0, "top_variance": 1.0}
    shares = values / variance
    entropy = -torch.special.xlogy(shares, shares).sum()
    # The mean variance is the sum over D, and 1/sqrt(D) its root where all of the length is spread.
    return {
        "feature_std": variance.sqrt().item(),
        "effective_rank": entropy.exp().item(),
        "top_variance": shares[-1].item(),
    }


def described(figures: dict[str, float]) -> str:
    """Figures as a line about an epoch."""
    return (
        f"features: std {figures['feature_std']:.3f} of an even spread, effective rank "
        f"{figures['effective_rank']:.1f}, largest direction {figures['top_variance']:.1%} of the variance"
    )


def warning_of(figures: dict[str, float]) -> str | None:
    """One sentence where features have collapsed, else None."""
    if figures["feature_std"] < LEAST_SPREAD:
        how = f"hardly differ between images (std {figures['feature_std']:.3f} of an even spread)"
    elif figures["effective_rank"] < LEAST_RANK:
        how = f"lie on a line (effective rank {figures['effective_rank']:.1f})"
    else:
        return None
    return f"warning: the features {how}: they have collapsed; lower --lr, warm up longer, or check the images"
