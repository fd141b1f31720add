"""Exact evaluation: every sample once, whatever the batch size and the number of processes."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from fasttrain.inference.forward import Amp, forward_batches
from fasttrain.inference.labels import class_map, map_labels
from fasttrain.inference.metrics import ClassificationMeter
from fasttrain.loading.loader import Loader


def evaluate(
    model: nn.Module,
    loader: Loader,
    num_classes: int,
    class_names: Sequence[str] | None = None,
    amp: Amp = "off",
    label: str = "evaluate",
    classes: bool = False,
) -> dict[str, Any]:
    """Evaluate a classifier on a sequential loader.

    Args:
        model: gives logits (B, num_classes); used in eval mode, its mode is put back.
        loader: yields each sample once over all ranks, padding masked by ``valid``.
        num_classes: outputs of the model.
        class_names: names of the outputs; the data set's classes are joined to them by name.
        amp: precision of the forward pass; metrics are computed in float32 and summed in float64.
        label: word before the progress bar.
        classes: tell of each class, too.

    Returns:
        {samples, top1, top5, loss, macro_f1} over the labelled samples of all ranks, fractions in 0–1; with `classes`
        also per_class, a list of {class, samples, predicted, accuracy, f1}.
    """
    mapping = torch.tensor(class_map(loader.class_names, class_names, num_classes), device=loader.device)
    meter = ClassificationMeter(num_classes, loader.device)
    for batch, logits in forward_batches(model, loader, amp, label):
        meter.add(logits, map_labels(batch.labels, mapping), batch.valid)
    result = meter.result()
    if classes:
        result["per_class"] = [
            {
                "class": class_names[number] if class_names else str(number),
                "samples": figures.samples,
                "predicted": figures.predicted,
                "accuracy": figures.accuracy,
                "f1": figures.f1,
            }
            for number, figures in enumerate(meter.per_class())
        ]
    return result
