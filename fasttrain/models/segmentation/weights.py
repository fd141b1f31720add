"""Weights of segmentation models: those of a classifier for the backbone, or those of a segmentation checkpoint."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import timm
from torch import Tensor, nn

from fasttrain.base.errors import WeightsError
from fasttrain.models.create import IMAGENET_OUTPUTS
from fasttrain.models.segmentation.segmenter import Segmenter
from fasttrain.models.segmentation.settings import SegmenterSettings
from fasttrain.models.weights import LoadedWeights, Match, load_weights, read_metadata, read_state_dict


@dataclass(frozen=True)
class LoadedSegmenter(LoadedWeights):
    """What `load_segmenter_weights` did.

    Attributes:
        backbone_only: the file was a classifier's, so that the head is a fresh one.
    """

    backbone_only: bool = False


def load_segmenter_weights(
    module: Segmenter, settings: SegmenterSettings, path: str | Path, match: Match = "name"
) -> LoadedSegmenter:
    """Load a weight file into `module` in place: all of a segmentation checkpoint (of other classes: all but its last
    layer), or a classifier's into the backbone.

    Args:
        settings: that `module` was made of.
        match: how a classifier's tensors are joined to those of timm's model (see `load_weights`).

    Raises:
        WeightsError: the file is not of this model.
    """
    if is_segmentation(path):
        return _load_checkpoint(module, path)
    tensors = load_backbone_weights(module.backbone, settings.backbone, path, match)
    return LoadedSegmenter(tensors, head_replaced=True, backbone_only=True)


def load_backbone_weights(backbone: nn.Module, name: str, path: str | Path, match: Match = "name") -> int:
    """Load a classifier's weights, or those of an encoder without one, into `backbone` in place.

    Args:
        backbone: a model of timm's that was made with ``features_only``.
        name: timm's name of it.
        match: how the tensors are joined to those of timm's whole model (see `load_weights`).

    Returns:
        number of tensors.

    Raises:
        WeightsError: the file is not of this model.
    """
    classifier = timm.create_model(name, num_classes=IMAGENET_OUTPUTS)
    load_weights(classifier, path, match)
    return _into_backbone(backbone, classifier.state_dict(), path)


def is_segmentation(path: str | Path) -> bool:
    """Whether a file is a checkpoint of a segmentation model."""
    return Path(path).is_file() and read_metadata(path).get("segmenter") is not None


def _load_checkpoint(module: Segmenter, path: str | Path) -> LoadedSegmenter:
    source, target = read_state_dict(path), module.state_dict()
    last = {key for key in target if key.startswith(f"{module.classifier}.")}
    other = any(key in source and source[key].shape != target[key].shape for key in last)
    kept = {key: value for key, value in source.items() if not (other and key in last)}
    _require_fit(kept, {key: value for key, value in target.items() if not (other and key in last)}, path)
    module.load_state_dict(kept, strict=False)
    return LoadedSegmenter(len(kept), head_replaced=other)


def _into_backbone(backbone: nn.Module, source: Mapping[str, Tensor], path: str | Path) -> int:
    """timm's feature extractors write ``stages_0.blocks`` or ``model.stages.0.blocks`` for ``stages.0.blocks``."""
    named = {_plain(key): value for key, value in source.items()}
    target = backbone.state_dict()
    found = {key: named[_plain(key)] for key in target if _plain(key) in named}
    # What a feature extractor has of its own (norms of single stages) starts anew; a file of another model has nothing.
    _require_fit(found, {key: target[key] for key in found}, path)
    if not any(value.ndim > 1 for value in found.values()):
        raise WeightsError(f"weights {path} hold nothing of the backbone; name the model they were made for")
    backbone.load_state_dict(found, strict=False)
    return len(found)


def _plain(key: str) -> str:
    return key.removeprefix("model.").replace("_", ".")


def _require_fit(source: Mapping[str, Tensor], target: Mapping[str, Tensor], path: str | Path) -> None:
    missing = [key for key in target if key not in source and not key.endswith("num_batches_tracked")]
    beyond = [key for key in source if key not in target]
    if missing or beyond:
        key = (missing or beyond)[0]
        what = f"lack {key!r}" if missing else f"hold {key!r} that the model has not"
        raise WeightsError(
            f"weights {path} do not fit the model: they {what}; make it with the settings they came from"
        )
    for key, tensor in source.items():
        if tensor.shape != target[key].shape:
            ours, theirs = tuple(target[key].shape), tuple(tensor.shape)
            raise WeightsError(f"weights {path}: {key} is of shape {theirs}, the model's {ours}")
