"""Classification metrics from sums that stay on the device and are reduced over ranks once."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from fasttrain.base.distributed import sum_over_ranks


@dataclass(frozen=True)
class ClassFigures:
    """How a class was recognised.

    Attributes:
        samples: that are of the class.
        predicted: that were taken for it.
        hits: both.
    """

    samples: int
    predicted: int
    hits: int

    @property
    def accuracy(self) -> float | None:
        """Share of its samples that were recognised (its recall); None without samples."""
        return self.hits / self.samples if self.samples else None

    @property
    def f1(self) -> float | None:
        """Harmonic mean of precision and recall; None without samples."""
        return 2 * self.hits / (self.samples + self.predicted) if self.samples else None


class ClassificationMeter:
    """Top-1, top-5, mean cross-entropy and macro F1 over the valid, labelled samples that were added.

    Everything is a sum (a count, or a confusion matrix), so that ranks with different numbers of samples reduce to
    exactly the figure of a single process.
    """

    def __init__(self, num_classes: int, device: torch.device | str) -> None:
        self.num_classes = num_classes
        # samples, top-1 hits, top-5 hits, summed loss; float64 so that sums do not depend on the batch size
        self._sums = torch.zeros(4, dtype=torch.float64, device=device)
        self._confusion = torch.zeros(num_classes * num_classes, dtype=torch.int64, device=device)

    def add(self, logits: torch.Tensor, labels: torch.Tensor, valid: torch.Tensor) -> None:
        """Count a batch: logits (B, C), labels int64 (B,) with -1 for unknown, valid bool (B,). No synchronisation."""
        logits = logits.float()
        counted = valid & (labels >= 0)
        target = labels.clamp(min=0)
        top = logits.topk(min(5, self.num_classes), dim=1).indices
        hit = top == target[:, None]
        loss = F.cross_entropy(logits, target, reduction="none")
        stacked = torch.stack([torch.ones_like(loss), hit[:, 0].to(loss), hit.any(1).to(loss), loss])
        self._sums += torch.where(counted, stacked.double(), 0.0).sum(1)
        cells = target * self.num_classes + top[:, 0]
        self._confusion.scatter_add_(0, cells, counted.long())

    def confusion(self) -> torch.Tensor:
        """Confusion matrix int64 (C, C) of this rank: rows are true classes, columns predicted ones."""
        return self._confusion.view(self.num_classes, self.num_classes)

    def per_class(self) -> list[ClassFigures]:
        """Figures of every class over all ranks, in the order of the classes."""
        confusion = sum_over_ranks(self._confusion.clone()).view(self.num_classes, self.num_classes).cpu()
        true, predicted, hits = confusion.sum(1).tolist(), confusion.sum(0).tolist(), confusion.diagonal().tolist()
        return [ClassFigures(*counts) for counts in zip(true, predicted, hits, strict=True)]

    def result(self) -> dict[str, Any]:
        """Reduce over ranks and return {samples, top1, top5, loss, macro_f1}; the figures are None without labels.

        Macro F1 is the mean over the classes that occur in the labels.
        """
        samples, top1, top5, loss = sum_over_ranks(self._sums.clone()).tolist()
        confusion = sum_over_ranks(self._confusion.clone()).view(self.num_classes, self.num_classes).double()
        if samples == 0:
            return {"samples": 0, "top1": None, "top5": None, "loss": None, "macro_f1": None}
        true, predicted, hits = confusion.sum(1), confusion.sum(0), confusion.diagonal()
        f1 = 2 * hits / (true + predicted).clamp(min=1)
        return {
            "samples": int(samples),
            "top1": top1 / samples,
            "top5": top5 / samples,
            "loss": loss / samples,
            "macro_f1": float(f1[true > 0].mean()),
        }
