"""A segmentation model ready to predict, from one of our checkpoints."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from fasttrain.base.config import load_settings
from fasttrain.base.errors import ConfigError, WeightsError
from fasttrain.base.palette import Colour
from fasttrain.loading.segmentation_views import WholeView
from fasttrain.models.checkpoint import file_hash
from fasttrain.models.segmentation.create import create_segmenter
from fasttrain.models.segmentation.segmenter import Segmenter
from fasttrain.models.segmentation.settings import SegmenterSettings
from fasttrain.models.weights import load_weights
from fasttrain.models.whole_images import read_checkpoint


@dataclass(frozen=True)
class OpenedSegmenter:
    """A model in eval mode with what is needed to feed it and to name its outputs.

    Attributes:
        settings: what it is made of.
        module: the model, on its device, channels-last, in eval mode.
        view: the view of whole images that it is to be fed with.
        class_names, palette: of the outputs, None if unknown.
        num_classes: number of outputs.
        weights_hash: xxh3-64 of the weight file.
        metrics: validation figures stored with the weights.
        crop: side in pixels of the crops it was trained on.
    """

    settings: SegmenterSettings
    module: Segmenter
    view: WholeView
    class_names: list[str] | None
    palette: tuple[Colour, ...] | None
    num_classes: int
    weights_hash: str
    crop: int | None = None
    metrics: dict[str, Any] = field(default_factory=dict)


def open_segmenter(path: str | Path, *, size: int | None = None, device: torch.device | str = "cpu") -> OpenedSegmenter:
    """Open a checkpoint of `fasttrain segment`, or a run's folder (its last checkpoint).

    Args:
        size: pixels of the images' shorter side, instead of the stored one; 0 for their own.

    Raises:
        WeightsError: nothing there, or no segmentation model.
    """
    path, info, view = read_checkpoint(
        path, "segmenter", "masks come from a segmentation model; train one with `segment train`"
    )
    try:
        stored: dict[str, Any] = {"palette": None, "crop": None, **(info.segmenter or {})}
        palette, crop = stored.pop("palette"), stored.pop("crop")
        settings = load_settings(SegmenterSettings, stored, "segmenter")
    except ConfigError as error:
        raise WeightsError(f"checkpoint {path} was written by another version of fasttrain: {error}") from None
    module = create_segmenter(settings, info.num_classes)
    load_weights(module, path, new_head=False)
    module = module.to(device=device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    return OpenedSegmenter(
        settings,
        module,
        view if size is None else view.model_copy(update={"size": size}),
        info.class_names,
        None if palette is None else tuple((int(r), int(g), int(b)) for r, g, b in palette),
        info.num_classes,
        file_hash(path),
        crop,
        dict(info.metrics),
    )
