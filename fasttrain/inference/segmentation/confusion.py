"""Metrics of masks, all from one table of counts that stays on the device and is summed over ranks once."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fasttrain.base.distributed import sum_over_ranks
from fasttrain.beton_build.mask_info import IGNORE


class ConfusionMatrix:
    """Pixels by true and predicted class. int64 counts: sums are exact in any order, over any number of ranks.

    Args:
        num_classes: C.
    """

    def __init__(self, num_classes: int, device: torch.device | str, ignore: int = IGNORE) -> None:
        self.num_classes, self.ignore = num_classes, ignore
        self._counts = torch.zeros(num_classes * num_classes, dtype=torch.int64, device=device)

    def add(self, predicted: Tensor, truth: Tensor) -> None:
        """Count pixels; nothing waits for the device.

        Args:
            predicted: integers of any shape, classes from 0 to C - 1.
            truth: the same; pixels of `ignore` are not counted. Other values beyond the classes are refused on the CPU,
                and an error of the device elsewhere.

        Raises:
            ValueError: the shapes differ.
            RuntimeError: a value is no class.
        """
        if predicted.shape != truth.shape:
            raise ValueError(f"predictions {tuple(predicted.shape)} and masks {tuple(truth.shape)} differ in shape")
        true = truth.flatten().long()
        counted = true != self.ignore
        cells = torch.where(counted, true * self.num_classes + predicted.flatten().long(), 0)
        self._counts.scatter_add_(0, cells, counted.long())

    def counts(self) -> Tensor:
        """int64 (C, C) of this rank: rows are true classes, columns predicted ones."""
        return self._counts.view(self.num_classes, self.num_classes)

    def result(self, names: Sequence[str] | None = None) -> dict[str, Any]:
        """Reduce over ranks; all ranks call it.

        Args:
            names: of the classes.

        Returns:
            {pixels, aacc, macc, miou, mdice, mfscore, iou, acc, dice, precision, absent}: the share of all pixels that
            is right, means over classes, and the lists of which they are; a class's entry is None where nothing is
            divided by nothing. Classes that neither truth nor prediction holds are named in `absent` and left out of
            the means, as is a class that no truth holds of macc. mfscore is the mean of the classes' F1, which is the
            same as their Dice: 2 TP / (2 TP + FP + FN). Means are None where no pixel counts.
        """
        total = sum_over_ranks(self._counts.clone()).view(self.num_classes, self.num_classes).cpu().double()
        hits, true, predicted = total.diagonal(), total.sum(1), total.sum(0)
        either = true + predicted - hits
        iou, acc = _shares(hits, either), _shares(hits, true)
        dice = _shares(2 * hits, true + predicted)
        absent = [number for number, pixels in enumerate(either.tolist()) if not pixels]
        pixels = int(total.sum())
        return {
            "pixels": pixels,
            "aacc": hits.sum().item() / pixels if pixels else None,
            "macc": _mean(acc),
            "miou": _mean(iou),
            "mdice": _mean(dice),
            "mfscore": _mean(dice),
            "iou": iou,
            "acc": acc,
            "dice": dice,
            "precision": _shares(hits, predicted),
            "absent": [names[number] if names else str(number) for number in absent],
        }


def _shares(part: Tensor, whole: Tensor) -> list[float | None]:
    return [a / b if b else None for a, b in zip(part.tolist(), whole.tolist(), strict=True)]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
