"""Statistics of normalisation layers anew, for weights that no training step has seen."""

from itertools import islice

import torch
from torch import nn

from fasttrain.base.console import progress
from fasttrain.base.distributed import average_buffers
from fasttrain.inference.forward import Amp, autocast
from fasttrain.loading.batch import all_views
from fasttrain.loading.loader import Loader


def normalisation_layers(model: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    """The batch normalisation layers of a model that keep running statistics."""
    layers = [layer for layer in model.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    return [layer for layer in layers if layer.track_running_stats]


@torch.no_grad()
def estimate_statistics(model: nn.Module, loader: Loader, amp: Amp, batches: int | None = None) -> None:
    """Means and variances of batch normalisation anew, over all ranks; the model is left in eval mode.

    They become the plain mean over the batches of a pass (Izmailov et al., UAI 2018, section 3.2). A model without such
    layers stays as it is.

    Args:
        model: its statistics are replaced, its weights stay.
        loader: one pass of it is used; in random order, or its batches would not stand for the whole.
        amp: precision of the forward pass.
        batches: use so many of its batches; None for all.
    """
    norms = normalisation_layers(model)
    if not norms:
        return
    momenta = [layer.momentum for layer in norms]
    for layer in norms:
        layer.reset_running_stats()
        layer.momentum = None  # the plain mean over all batches
    model.train()
    count = len(loader) if batches is None else min(batches, len(loader))
    with progress("re-estimate statistics", count * loader.batch_size) as bar:
        for batch in islice(loader, count):
            with autocast(batch.images.device, amp):
                model(all_views(batch.images))
            bar.advance(loader.batch_size)
    for layer, momentum in zip(norms, momenta, strict=True):
        layer.momentum = momentum
    model.eval()
    average_buffers(model)
