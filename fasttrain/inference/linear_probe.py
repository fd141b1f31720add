"""A linear classifier on frozen features."""

import torch
import torch.nn.functional as F
from torch import Tensor

from fasttrain.inference.features import Features
from fasttrain.inference.knn import hits

L2 = 1e-3
STEPS = 200


def fit_linear(features: Tensor, labels: Tensor, classes: int, l2: float = L2, steps: int = STEPS) -> Tensor:
    """Weights (D + 1, C) float32 of multinomial logistic regression, the last row being the biases.

    The minimum of the mean cross-entropy plus ``l2 / 2`` times the squared weights, by L-BFGS on all samples at once.

    Args:
        features: (n, D) float32, with mean 0 and deviation 1.
        labels: (n,) int64.
        steps: at the most.
    """
    weights = torch.zeros(features.shape[1] + 1, classes, device=features.device, requires_grad=True)
    solver = torch.optim.LBFGS([weights], max_iter=steps, tolerance_grad=1e-6, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        solver.zero_grad()
        logits = features @ weights[:-1] + weights[-1]
        value = F.cross_entropy(logits, labels) + 0.5 * l2 * weights[:-1].square().sum()
        value.backward()
        return value

    solver.step(loss)
    return weights.detach()


def linear_accuracy(train: Features, test: Features, classes: int, l2: float = L2) -> dict[str, float]:
    """{linear_top1, linear_top5} of `test` by a classifier that was fitted to `train`, both standardised by the means
    and deviations of `train`."""
    mean, deviation = train.values.mean(0), train.values.std(0).clamp(min=1e-6)
    weights = fit_linear((train.values - mean) / deviation, train.labels, classes, l2)
    scores = (test.values - mean) / deviation @ weights[:-1] + weights[-1]
    top1, top5 = (count.item() / len(test.labels) for count in hits(scores, test.labels))
    return {"linear_top1": top1, "linear_top5": top5}
