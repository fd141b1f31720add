"""Weighted k-nearest neighbours on frozen features."""

import torch
import torch.nn.functional as F
from torch import Tensor

from fasttrain.base.distributed import sum_over_ranks
from fasttrain.base.process import rank, world_size
from fasttrain.inference.features import Features

QUERIES, BANK = 1024, 65536  # that are compared at a time


@torch.inference_mode()
def knn_votes(
    queries: Tensor,
    bank: Tensor,
    labels: Tensor,
    classes: int,
    *,
    k: int = 20,
    temperature: float = 0.07,
    block: tuple[int, int] = (QUERIES, BANK),
) -> Tensor:
    """Votes of the k most similar features for their classes, weighted by ``exp(cosine / temperature)``.

    Wu et al., "Unsupervised Feature Learning via Non-Parametric Instance Discrimination", arXiv 1805.01978, section
    3.4. The matrix of similarities is made a block at a time.

    Args:
        queries: (Q, D).
        bank: (N, D) on the same device.
        labels: (N,) int64 classes of `bank`.
        classes: C.
        k: N where there are fewer.
        block: queries, and features of the bank, that are compared at a time.

    Returns:
        (Q, C) float32.
    """
    bank = F.normalize(bank.float())
    votes = torch.zeros(len(queries), classes, device=queries.device)
    for start in range(0, len(queries), block[0]):
        similar, nearest = _nearest(F.normalize(queries[start : start + block[0]].float()), bank, k, block[1])
        # Less the nearest one's, so that nothing overflows; shares of the classes stay the same.
        weights = ((similar - similar[:, :1]) / temperature).exp()
        votes[start : start + block[0]].scatter_add_(1, labels[nearest], weights)
    return votes


def _nearest(queries: Tensor, bank: Tensor, k: int, block: int) -> tuple[Tensor, Tensor]:
    """(Q, k) largest cosines, in falling order, and the rows of the bank that they are with."""
    similar = queries.new_empty(len(queries), 0)
    nearest = torch.empty(len(queries), 0, dtype=torch.int64, device=queries.device)
    for start in range(0, len(bank), block):
        here = queries @ bank[start : start + block].T
        rows = torch.arange(start, start + here.shape[1], device=here.device).expand_as(here)
        similar, nearest = torch.cat([similar, here], 1), torch.cat([nearest, rows], 1)
        similar, places = similar.topk(min(k, similar.shape[1]), dim=1)
        nearest = nearest.gather(1, places)
    return similar, nearest


def knn_accuracy(
    train: Features, test: Features, classes: int, *, k: int = 20, temperature: float = 0.07
) -> dict[str, float]:
    """{knn_top1, knn_top5} of `test` by its neighbours in `train`; each rank does a part of it."""
    mine = slice(rank(), None, world_size())
    votes = knn_votes(test.values[mine], train.values, train.labels, classes, k=k, temperature=temperature)
    top1, top5 = hits(votes, test.labels[mine])
    counts = sum_over_ranks(torch.stack([top1, top5]).double())
    return {"knn_top1": counts[0].item() / len(test.labels), "knn_top5": counts[1].item() / len(test.labels)}


def hits(scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """How many of (n,) labels have the highest, and one of the five highest, of (n, C) scores."""
    hit = scores.topk(min(5, scores.shape[1]), dim=1).indices == labels[:, None]
    return hit[:, 0].sum(), hit.any(1).sum()
