"""A model without its classifier, from a checkpoint of any kind."""

from dataclasses import replace
from pathlib import Path

import torch

from fasttrain.base.errors import WeightsError
from fasttrain.models.checkpoint import file_hash
from fasttrain.models.create import create_model, eval_view_of
from fasttrain.models.opened import OpenedModel, open_model
from fasttrain.models.weights import load_weights, read_metadata


def open_encoder(
    path: str | Path, *, model: str | None = None, size: int | None = None, device: torch.device | str = "cpu"
) -> OpenedModel:
    """Open what gives features (B, D): a checkpoint of pre-training, one of training less its classifier, or bare
    weights, with or without one.

    Args:
        path: a run folder, a checkpoint, or any weight file together with `model`.
        model: timm's name, for bare weights.
        size: image side in pixels, instead of the stored one.

    Raises:
        WeightsError: nothing there, or weights and model do not fit.
    """
    path = Path(path)
    file = path / "last.safetensors" if path.is_dir() else path
    if file.is_file() and read_metadata(file):
        opened = open_model(file, model=model, size=size, device=device)
        reset = getattr(opened.module, "reset_classifier", None)
        if reset is None:
            raise WeightsError(f"{path}: {opened.name} does not give up its classifier; take another model")
        reset(0)
        return replace(opened, num_classes=0, class_names=None)
    if model is None:
        raise WeightsError(f"{path} is not a fasttrain checkpoint; say which timm model its weights are for (--model)")
    view = eval_view_of(model, size)
    module = create_model(model, 0, size=view.size)
    load_weights(module, file)
    module = module.to(device=device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    return OpenedModel(model, module, view, None, 0, file_hash(file))


def require_classifier(opened: OpenedModel, path: str | Path) -> OpenedModel:
    """`opened`, if it gives classes.

    Raises:
        WeightsError: it gives features alone.
    """
    if opened.num_classes == 0:
        raise WeightsError(
            f"{path} holds an encoder without a classifier; fine-tune it (`fasttrain train --weights`) or measure its "
            "features (`fasttrain probe`)"
        )
    return opened
