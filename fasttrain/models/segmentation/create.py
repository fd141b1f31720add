"""Segmentation models from their settings."""

from fasttrain.models.segmentation.segmenter import Segmenter
from fasttrain.models.segmentation.settings import SegmenterSettings
from fasttrain.models.segmentation.smp import SmpSegmenter
from fasttrain.models.segmentation.timm_backbone import BackboneSegmenter


def create_segmenter(settings: SegmenterSettings, num_classes: int, *, pretrained: bool = False) -> Segmenter:
    """Build a segmentation model with a fresh head.

    Args:
        pretrained: fetch timm's weights of the backbone from its hub; local files are loaded by
            `fasttrain.models.segmentation.weights.load_segmenter_weights`.

    Raises:
        ConfigError: segmentation-models-pytorch is missing, or knows no such architecture.
        WeightsError: timm has no such backbone.
    """
    kind = BackboneSegmenter if settings.smp is None else SmpSegmenter
    return kind(settings, num_classes, pretrained)
