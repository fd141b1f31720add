"""A mapper ready to map, from one of our checkpoints."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from fasttrain.base.config import load_settings
from fasttrain.base.errors import ConfigError, WeightsError
from fasttrain.loading.segmentation_views import WholeView
from fasttrain.models.checkpoint import file_hash
from fasttrain.models.objects.mapper import MapperSettings, ObjectMapper
from fasttrain.models.weights import load_weights
from fasttrain.models.whole_images import read_checkpoint

Shows = Literal["objects", "background"]


@dataclass(frozen=True)
class OpenedMapper:
    """A mapper in eval mode with what is needed to feed it and to read its maps.

    Attributes:
        module: the model, on its device, channels-last, in eval mode.
        view: the view of whole images that it is to be fed with.
        shows: what lies where its maps are high.
        weights_hash: xxh3-64 of the weight file.
    """

    module: ObjectMapper
    view: WholeView
    shows: Shows
    weights_hash: str


def open_mapper(path: str | Path, *, size: int | None = None, device: torch.device | str = "cpu") -> OpenedMapper:
    """Open a checkpoint of `fasttrain objects train`, or a run's folder (its last checkpoint).

    Args:
        size: pixels of the images' shorter side, instead of the stored one; 0 for their own.

    Raises:
        WeightsError: nothing there, or no mapper.
    """
    path, info, view = read_checkpoint(path, "objects", "object masks come from a run of `fasttrain objects train`")
    stored: dict[str, Any] = dict(info.objects or {})
    shows = stored.pop("shows", None)
    if shows not in ("objects", "background"):
        raise WeightsError(f"checkpoint {path} does not say what its maps show; train the run to the end of an epoch")
    made_of = {name: stored[name] for name in MapperSettings.model_fields if name in stored}
    try:
        settings = load_settings(MapperSettings, made_of, "objects")
    except ConfigError as error:
        raise WeightsError(f"checkpoint {path} was written by another version of fasttrain: {error}") from None
    module = ObjectMapper(settings)
    load_weights(module, path, new_head=False)
    module = module.to(device=device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    return OpenedMapper(
        module, view if size is None else view.model_copy(update={"size": size}), shows, file_hash(path)
    )
