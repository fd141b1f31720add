"""Which output of a model each class of a data set's masks is."""

from collections.abc import Sequence

import torch
from torch import Tensor

from fasttrain.base.errors import LoaderError
from fasttrain.beton_build.mask_info import IGNORE
from fasttrain.inference.labels import ClassMismatchError, class_map
from fasttrain.loading.dataset import ImageDataset


def count_mask_classes(dataset: ImageDataset) -> int:
    """Number of classes of a data set's masks: of their names, or up to the highest value where nobody named them.

    Raises:
        LoaderError: it has no masks, or none of their pixels counts.
    """
    if dataset.masks is None:
        raise LoaderError(
            f"{dataset.name} holds no masks, and segmentation is trained and measured on them; build it with --masks"
        )
    if dataset.masks.classes is not None:
        return len(dataset.masks.classes)
    used = dataset.mask_pixels()[:, :-1].any(0).nonzero()[0]
    if not len(used):
        raise LoaderError(f"no pixel of the masks of {dataset.name} counts, so there is nothing to learn or to measure")
    return int(used[-1]) + 1


def mask_names(dataset: ImageDataset) -> list[str] | None:
    """Names of the classes of a data set's masks; None where nobody named them."""
    named = dataset.masks is not None and dataset.masks.classes is not None
    return list(dataset.masks.classes) if named else None  # type: ignore[union-attr, arg-type]


def mask_map(dataset: ImageDataset, class_names: Sequence[str] | None, num_classes: int) -> Tensor:
    """(256,) uint8: the model's output for each value of a data set's masks, joined by name; `IGNORE` stays.

    Raises:
        LoaderError: the data set has no masks.
        ClassMismatchError: a class is unknown to the model, or there are more than it has outputs.
    """
    found, names = count_mask_classes(dataset), mask_names(dataset)
    if found > num_classes and (names is None or class_names is None):
        raise ClassMismatchError(
            f"the masks of {dataset.name} hold {found} classes, and the model knows {num_classes}; measure it on data "
            "of the classes that it was trained on"
        )
    try:
        outputs = class_map(names, class_names, num_classes)
    except ClassMismatchError as error:
        raise ClassMismatchError(f"masks of {dataset.name}: {error}") from None
    table = torch.full((256,), IGNORE, dtype=torch.uint8)
    table[: len(outputs)] = torch.tensor(outputs, dtype=torch.uint8)
    return table
