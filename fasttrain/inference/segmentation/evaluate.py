"""Exact evaluation of masks: every pixel of every image once, at the size of the masks as they were stored."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from fasttrain.base.distributed import sum_over_ranks
from fasttrain.inference.forward import Amp
from fasttrain.inference.segmentation.classes import mask_map
from fasttrain.inference.segmentation.confusion import ConfusionMatrix
from fasttrain.inference.segmentation.scores import ViewSettings, score_images
from fasttrain.loading.loader import Loader


def evaluate_masks(
    model: nn.Module,
    loaders: Sequence[Loader],
    num_classes: int,
    class_names: Sequence[str] | None = None,
    how: ViewSettings = ViewSettings(),
    *,
    amp: Amp = "off",
    crop: int | None = None,
    label: str = "evaluate",
) -> dict[str, Any]:
    """Evaluate a segmentation model.

    Args:
        model: gives logits (B, num_classes, H, W); used in eval mode, its mode is put back.
        loaders: of `fasttrain.inference.segmentation.scores.open_views`, over data with masks.
        class_names: names of the outputs; the masks' classes are joined to them by name.
        crop: side of the training crops, for ``slide``.

    Returns:
        {samples} and all of `ConfusionMatrix.result`, over all ranks.

    Raises:
        ClassMismatchError: the masks have other classes than the model.
    """
    first = loaders[0]
    table = mask_map(first.dataset, class_names, num_classes).to(first.device)
    matrix = ConfusionMatrix(num_classes, first.device)
    samples = torch.zeros(1, dtype=torch.int64, device=first.device)
    for scored in score_images(model, loaders, how, amp=amp, crop=crop, probabilities=False, label=label):
        predicted = scored.scores.argmax(1)
        for row, mask in zip(first.masks_of(scored.rows), predicted, strict=True):
            truth = torch.from_numpy(row.copy()).to(first.device)
            matrix.add(mask, table[truth.long()])
        samples += len(scored.rows)
    return {"samples": int(sum_over_ranks(samples).item()), **matrix.result(class_names)}
