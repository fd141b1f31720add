"""Which output of a model each class of a data set is."""

from collections.abc import Sequence

import torch

from fasttrain.base.errors import FasttrainError


class ClassMismatchError(FasttrainError):
    """A data set has classes that the model does not know."""


def class_map(data_classes: Sequence[str] | None, model_classes: Sequence[str] | None, outputs: int) -> list[int]:
    """Index of the model's output for each class of the data set.

    Classes are joined by name, so a data set may hold a part of the model's classes in any order. Where one side has no
    names, or no name of the data is known to a model with as many outputs, position decides.

    Raises:
        ClassMismatchError: some names are unknown to the model, or there are more classes than outputs.
    """
    if data_classes is None:
        return list(range(outputs))
    positions = {name: index for index, name in enumerate(model_classes or ())}
    unknown = [name for name in data_classes if name not in positions]
    if not unknown:
        return [positions[name] for name in data_classes]
    if model_classes is None or len(unknown) == len(data_classes):
        if len(data_classes) == outputs:
            return list(range(outputs))
        raise ClassMismatchError(
            f"the data set has {len(data_classes)} classes ({', '.join(data_classes[:3])}, …), none of which is among "
            f"the model's {outputs}; build it with --classes in the model's names"
        )
    raise ClassMismatchError(
        f"class {unknown[0]!r} of the data set is unknown to the model ({len(unknown)} such); "
        "evaluate on data of the classes that the model was trained on"
    )


def map_labels(labels: torch.Tensor, mapping: torch.Tensor) -> torch.Tensor:
    """Labels of the data set (int64, any shape, -1 unknown) as outputs of the model; unknown ones stay -1."""
    return torch.where(labels >= 0, mapping[labels.clamp(min=0)], labels)
