"""Class-agnostic activation maps: a timm backbone, and a head that shares out its features between two sides.

Xie et al., "C2AM: Contrastive learning of Class-agnostic Activation Map for weakly supervised object localization and
semantic segmentation", CVPR 2022, arXiv 2203.13505.
"""

from collections import OrderedDict
from typing import Any, Literal, NamedTuple

import timm
import torch
from torch import Tensor, nn

from fasttrain.base.config import Settings
from fasttrain.base.errors import WeightsError
from fasttrain.models.create import known_model
from fasttrain.models.segmentation.timm_backbone import channels_first

HEAD = "head"
_REFUSALS = (TypeError, RuntimeError, OSError, ValueError, AttributeError, AssertionError, NotImplementedError)


class MapperSettings(Settings):
    """What a mapper is made of. A checkpoint stores it, so that the model can be made again.

    Attributes:
        model: timm's name of the backbone.
        stride: pixels of the image that a place of the map stands for. Where the backbone's last features are coarser,
            its last stages are dilated instead of strided, as far as timm knows how.
    """

    model: str = "resnet50"
    stride: Literal[8, 16, 32] = 16


class Sides(NamedTuple):
    """What a mapper gives of B images, in float32.

    Attributes:
        one, other: (B, C) mean features under the map, and under what the map leaves.
        maps: (B, 1, h, w) between 0 and 1. Which of the two sides is the objects' shows in training.
    """

    one: Tensor
    other: Tensor
    maps: Tensor


class ObjectMapper(nn.Module):
    """Images (B, 3, H, W) to `Sides`.

    The head is a convolution of 3 x 3 to one channel without bias, batch normalisation and a sigmoid, as published.

    Attributes:
        across_ranks: whether the losses compare images of all ranks.
        pretrained_cfg: as timm's models have it: which module is the head.

    Raises:
        WeightsError: timm has no such model, or cannot make it with that stride.
    """

    def __init__(self, settings: MapperSettings, pretrained: bool = False) -> None:
        super().__init__()
        self.encoder, self.channels = _backbone(settings, pretrained)
        convolution = nn.Conv2d(self.channels, 1, 3, padding=1, bias=False)
        self.head = nn.Sequential(OrderedDict(conv=convolution, norm=nn.BatchNorm2d(1)))
        self.across_ranks = True
        self.pretrained_cfg = {"classifier": (HEAD,)}

    def forward(self, images: Tensor) -> Sides:
        features = self._features(images)
        maps = torch.sigmoid(self.head(features).float())
        # A mean over hundreds of places is no work for half precision.
        with torch.autocast(images.device.type, enabled=False):
            places, shares = features.float().flatten(2), maps.flatten(2)
            one = (places * shares).mean(2)
            other = (places * (1 - shares)).mean(2)
        return Sides(one, other, maps)

    def maps(self, images: Tensor) -> Tensor:
        """(B, 1, h, w) float32 between 0 and 1."""
        return torch.sigmoid(self.head(self._features(images)).float())

    def no_weight_decay(self) -> set[str]:
        """What the backbone excludes."""
        own = getattr(self.encoder, "no_weight_decay", set)
        return {f"encoder.{name}" for name in own()}

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Compute the backbone's activations anew in the backward pass.

        Raises:
            AttributeError: it knows no such thing.
        """
        self.encoder.set_grad_checkpointing(enable)  # type: ignore[operator]

    def _features(self, images: Tensor) -> Tensor:
        return channels_first(self.encoder(images)[0], self.channels)


def _backbone(settings: MapperSettings, pretrained: bool) -> tuple[nn.Module, int]:
    """The backbone, which gives its last feature maps alone, and their channels."""
    name = settings.model
    info, options = _of_any_size(name)
    last = info.reduction()[-1]
    if last != settings.stride:
        options["output_stride"] = settings.stride
    chosen = {**options, "features_only": True, "out_indices": (info.out_indices[-1],)}
    try:
        module: nn.Module = timm.create_model(name, pretrained=pretrained, **chosen)
        made: Any = module.feature_info
        fits = made.reduction()[-1] == settings.stride
    except _REFUSALS as error:
        if last == settings.stride:
            raise WeightsError(f"timm cannot make a backbone of {name!r}: {error}") from None
        fits = False
    if not fits:
        way = f"give stride={last}, or take" if last in (8, 16, 32) else "take"
        raise WeightsError(
            f"the last features of {name} have a stride of {last}, and timm cannot make it with {settings.stride}; "
            f"{way} a backbone whose stride can be chosen (resnet50, convnext_tiny, efficientnet_b0, …)"
        )
    return module, made.channels()[-1]


def _of_any_size(name: str) -> tuple[Any, dict[str, Any]]:
    """What timm tells of a backbone's features, and the options with which one made for images of a single size takes
    others: positions are interpolated, and sides padded."""
    known_model(name)
    config = timm.get_pretrained_cfg(name, allow_unregistered=True)
    fixed = config is not None and config.fixed_input_size
    ways: list[dict[str, Any]] = [{"dynamic_img_size": True, "dynamic_img_pad": True}, {"strict_img_size": False}]
    for options in [*ways, {}] if fixed else [{}]:
        try:
            return timm.create_model(name, features_only=True, **options).feature_info, options
        except _REFUSALS as error:
            reason = error
    raise WeightsError(f"{name} gives no feature maps ({reason}); take another backbone")
