"""Weights that a mapper starts from: a classifier's for the backbone, or those of another mapper."""

from pathlib import Path

from fasttrain.models.objects.mapper import MapperSettings, ObjectMapper
from fasttrain.models.segmentation.weights import load_backbone_weights
from fasttrain.models.weights import Match, load_weights, read_metadata


def load_mapper_weights(
    module: ObjectMapper, settings: MapperSettings, path: str | Path, match: Match = "name"
) -> tuple[int, bool]:
    """Load a weight file into `module` in place.

    Args:
        settings: that `module` was made of.
        match: how a classifier's tensors are joined to those of timm's model (see `load_weights`).

    Returns:
        number of tensors, and whether the head's are among them.

    Raises:
        WeightsError: the file is not of this model.
    """
    if Path(path).is_file() and read_metadata(path).get("objects") is not None:
        return load_weights(module, path, new_head=False).tensors, True
    return load_backbone_weights(module.encoder, settings.model, path, match), False
