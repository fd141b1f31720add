"""timm models as backbones, with a head on their feature maps."""

import timm
from torch import Tensor, nn

from fasttrain.base.errors import ConfigError, WeightsError
from fasttrain.models.create import known_model
from fasttrain.models.segmentation.daformer import DAFormerHead
from fasttrain.models.segmentation.segmenter import Segmenter, resized
from fasttrain.models.segmentation.settings import SegmenterSettings

FINEST = 4  # pixels: what has a smaller stride costs more than it brings


class BackboneSegmenter(Segmenter):
    """A timm backbone under a `DAFormerHead`. Its features have strides of 4 to 32 (plain ViTs: 16 each)."""

    def __init__(self, settings: SegmenterSettings, num_classes: int, pretrained: bool = False) -> None:
        super().__init__(num_classes, "head.classify")
        self.encoder, self.channels = _features(settings, pretrained)
        self.head = DAFormerHead(
            self.channels,
            num_classes,
            settings.head_embed,
            settings.head_channels,
            settings.dilations,
            settings.head_dropout,
        )

    def forward_features(self, images: Tensor) -> list[Tensor]:
        return [channels_first(maps, count) for maps, count in zip(self.encoder(images), self.channels, strict=True)]

    def decode(self, features: list[Tensor], size: tuple[int, int]) -> Tensor:
        return resized(self.head(features), size)

    @property
    def backbone(self) -> nn.Module:
        return self.encoder


def _features(settings: SegmenterSettings, pretrained: bool) -> tuple[nn.Module, list[int]]:
    """The backbone, and the channels of its feature maps.

    Raises:
        WeightsError: timm has no such model, or it gives no feature maps.
    """
    name, options = settings.model, dict(settings.options)
    known_model(name, "`fasttrain train --list-models` names timm's; besides there are smp:unet, smp:fpn, …")
    if settings.drop_path_rate:
        options["drop_path_rate"] = settings.drop_path_rate
    try:
        whole = timm.create_model(name, features_only=True, **options).feature_info
        strides: list[int] = whole.reduction()
        wanted = [index for index, stride in enumerate(strides) if stride >= FINEST]
        if not wanted:
            raise ConfigError(f"{name} has no feature maps of strides from {FINEST} on; take another backbone")
        indices = tuple(whole.out_indices[index] for index in wanted)
        module: nn.Module = timm.create_model(
            name, features_only=True, out_indices=indices, pretrained=pretrained, **options
        )
    except (TypeError, RuntimeError, OSError, ValueError, AttributeError, AssertionError) as error:
        raise WeightsError(
            f"timm cannot make a backbone of {name!r} with {options or 'its defaults'}: {error}"
        ) from None
    return module, module.feature_info.channels()  # type: ignore[union-attr, operator]


def channels_first(maps: Tensor, channels: int) -> Tensor:
    """Swin and its like give (B, h, w, channels)."""
    return maps if maps.shape[1] == channels else maps.permute(0, 3, 1, 2)
