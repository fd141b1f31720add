"""The features of a labelled data set, as a frozen encoder gives them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fasttrain.base.distributed import gather_on_all
from fasttrain.base.errors import FasttrainError
from fasttrain.inference.forward import Amp, forward_batches
from fasttrain.inference.labels import class_map, map_labels
from fasttrain.loading.loader import Loader


@dataclass(frozen=True)
class Features:
    """Of all labelled samples of a data set, in its order, the same on every rank.

    Attributes:
        values: (n, D) float32.
        labels: (n,) int64.
    """

    values: Tensor
    labels: Tensor


def features_of(
    encoder: nn.Module,
    loader: Loader,
    amp: Amp = "off",
    classes: Sequence[str] | None = None,
    num_classes: int | None = None,
    label: str = "features",
) -> Features:
    """Pass a data set through an encoder, once each sample, over all ranks.

    Args:
        encoder: gives (B, D).
        loader: sequential; on whose device the features stay.
        classes, num_classes: what labels count in; None for the data set's own.

    Raises:
        FasttrainError: no sample has a label.
        ClassMismatchError: the data set has classes that are not among `classes`.
    """
    outputs = loader.num_classes if num_classes is None else num_classes
    mapping = torch.tensor(class_map(loader.class_names, classes or loader.class_names, outputs), device=loader.device)
    rows, values, labels = [], [], []
    for batch, features in forward_batches(encoder, loader, amp, label):
        if features.ndim != 2:
            raise FasttrainError(f"the model gives {features.ndim - 1}-dimensional features; take one that pools them")
        wanted = batch.valid & (batch.labels >= 0)
        rows.append(batch.ids[wanted].cpu())
        values.append(features[wanted].cpu())
        labels.append(map_labels(batch.labels[wanted], mapping).cpu())
    mine = (torch.cat(rows), torch.cat(values), torch.cat(labels)) if rows else None
    parts = [part for part in gather_on_all(mine) if part is not None]
    row, value, target = (torch.cat([part[number] for part in parts]) for number in range(3))
    if not len(row):
        raise FasttrainError(f"{loader.dataset.name} holds no labelled sample, so its features cannot be compared")
    order = row.argsort()
    return Features(value[order].to(loader.device), target[order].to(loader.device))
