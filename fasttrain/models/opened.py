"""A model ready to predict, from one of our checkpoints or from bare weights."""

import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from timm.data import ImageNetInfo
from torch import nn

from fasttrain.base.config import load_settings
from fasttrain.base.errors import ConfigError, WeightsError
from fasttrain.loading.views import EvalView, parse_view
from fasttrain.models.checkpoint import CheckpointInfo, file_hash
from fasttrain.models.create import IMAGENET_OUTPUTS, create_model, eval_view_of
from fasttrain.models.heads import HeadSettings
from fasttrain.models.weights import Match, load_weights, output_count, read_metadata, read_state_dict


@dataclass(frozen=True)
class OpenedModel:
    """A model in eval mode with what is needed to feed it and to name its outputs.

    Attributes:
        name: timm's name.
        module: the model, on its device, channels-last, in eval mode.
        view: the eval view it is to be fed with.
        class_names: names of the outputs, None if unknown.
        num_classes: number of outputs.
        weights_hash: xxh3-64 of the weight file.
        metrics: validation figures stored with the weights.
        train_counts: samples of each class in the data it was trained on, None if unknown.
    """

    name: str
    module: nn.Module
    view: EvalView
    class_names: list[str] | None
    num_classes: int
    weights_hash: str
    metrics: dict[str, Any] = field(default_factory=dict)
    train_counts: list[int] | None = None

    @property
    def patch(self) -> int:
        """Side in pixels of a transformer's patches, of which its images' sides are multiples; 1 without patches."""
        side = getattr(getattr(self.module, "patch_embed", None), "patch_size", 1)
        return int(side[0] if isinstance(side, tuple) else side)

    def at_size(self, size: int) -> nn.Module:
        """The model for images of `size` pixels: a copy with its positions resampled, where timm made it for one size.

        A model that timm can make for one size alone comes as it is, and says itself what is wrong.

        Raises:
            WeightsError: it cannot be made for that size.
        """
        if size == self.view.size or not hasattr(self.module, "set_input_size"):
            return self.module
        module = copy.deepcopy(self.module)
        try:
            module.set_input_size(img_size=(size, size))  # type: ignore[operator]  # timm's, of models of one size
        except (AssertionError, RuntimeError, ValueError) as error:
            raise WeightsError(f"{self.name} cannot be made for images of {size} pixels: {error}") from error
        return module


def open_model(
    path: str | Path,
    *,
    model: str | None = None,
    match: Match = "name",
    size: int | None = None,
    device: torch.device | str = "cpu",
) -> OpenedModel:
    """Open a checkpoint, a run folder (its last checkpoint) or bare weights.

    Args:
        path: ``*.safetensors`` of ours, a run folder, or any weight file together with `model`.
        model: timm's name; needed for bare weights, refused if it contradicts a checkpoint's own.
        match: how bare weights are joined to the model's tensors (see `load_weights`).
        size: image side in pixels, instead of the stored one.
        device: where the model goes.

    Raises:
        WeightsError: nothing there, or weights and model do not fit.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "last.safetensors"
    record = read_metadata(path) if path.is_file() else {}
    if record:
        opened = _open_checkpoint(path, CheckpointInfo.from_record(record, path), model, size)
    else:
        opened = _open_bare(path, model, match, size)
    module = opened.module.to(device=device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    return OpenedModel(**{**opened.__dict__, "module": module})


def _open_checkpoint(path: Path, info: CheckpointInfo, model: str | None, size: int | None) -> OpenedModel:
    if info.segmenter is not None:
        raise WeightsError(
            f"checkpoint {path} holds a segmentation model; use `fasttrain segment evaluate` or `predict`"
        )
    if info.objects is not None:
        raise WeightsError(f"checkpoint {path} maps objects and knows no classes; use `fasttrain objects masks`")
    if model is not None and model != info.model:
        raise WeightsError(f"checkpoint {path} holds a {info.model}, not a {model}; leave --model out")
    view = parse_view(info.eval_view)
    if not isinstance(view, EvalView):
        raise WeightsError(f"checkpoint {path} stores a {view.kind} view where an eval view belongs")
    view = view.model_copy(update={"size": size or view.size})
    module = create_model(info.model, info.num_classes, size=view.size, head=_head(info, path))
    load_weights(module, path, new_head=False)
    return OpenedModel(
        info.model,
        module,
        view,
        info.class_names,
        info.num_classes,
        file_hash(path),
        dict(info.metrics),
        info.train_counts,
    )


def _head(info: CheckpointInfo, path: Path) -> HeadSettings | None:
    if info.head is None:
        return None
    try:
        return load_settings(HeadSettings, info.head, "head")
    except ConfigError as error:
        raise WeightsError(f"checkpoint {path} was written by another version of fasttrain: {error}") from None


def _open_bare(path: Path, model: str | None, match: Match, size: int | None) -> OpenedModel:
    state = read_state_dict(path)
    if model is None:
        raise WeightsError(f"{path} is not a fasttrain checkpoint; say which timm model its weights are for (--model)")
    count = output_count(state, create_model(model, IMAGENET_OUTPUTS), match)
    if count is None:
        raise WeightsError(f"weights {path} hold no classifier of {model}, so they cannot predict classes; train first")
    view = eval_view_of(model, size)
    module = create_model(model, count, size=view.size)
    load_weights(module, path, match, new_head=False)
    names = ImageNetInfo().label_names() if count == IMAGENET_OUTPUTS else None
    return OpenedModel(model, module, view, names, count, file_hash(path))
