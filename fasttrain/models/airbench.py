"""Keller Jordan's network for CIFAR-10 speed runs, as timm models: `create_model` knows them once this is imported.

"94 % on CIFAR-10 in 3.29 seconds on a single GPU", arXiv 2404.00498, as in the later `airbench94_muon.py`.
"""

from typing import Any

import torch.nn.functional as F
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

__all__ = ["Airbench"]

_PATCH = 2  # side of the first convolution


def _norm(channels: int) -> nn.BatchNorm2d:
    """Batch norm with a learned shift and no scale; its statistics follow the last few batches."""
    norm = nn.BatchNorm2d(channels, eps=1e-12, momentum=0.4)
    norm.weight.requires_grad_(False)
    return norm


def _convolution(channels_in: int, channels_out: int) -> nn.Conv2d:
    """3 x 3, of which as many filters as there are channels that come in begin by passing them on."""
    convolution = nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False)
    nn.init.dirac_(convolution.weight.data[:channels_in])
    return convolution


class _Group(nn.Module):
    """Two convolutions, the first of which halves the side."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = _convolution(channels_in, channels_out), _norm(channels_out)
        self.conv2, self.norm2 = _convolution(channels_out, channels_out), _norm(channels_out)

    def forward(self, images: Tensor) -> Tensor:
        images = F.gelu(self.norm1(F.max_pool2d(self.conv1(images), 2)))
        return F.gelu(self.norm2(self.conv2(images)))


class Airbench(nn.Module):
    """A convolution of 2 x 2, made to hold whitening filters and their negatives, three groups, a linear classifier.

    Args:
        widths: channels of each group.
        num_classes: 0 for features instead of logits.
    """

    def __init__(
        self, widths: tuple[int, ...] = (64, 256, 256), num_classes: int = 10, in_chans: int = 3, drop_rate: float = 0.0
    ) -> None:
        super().__init__()
        self.num_classes, self.num_features, self.drop_rate = num_classes, widths[-1], drop_rate
        filters = 2 * in_chans * _PATCH**2
        self.whiten = nn.Conv2d(in_chans, filters, _PATCH)
        sides = zip((filters, *widths[:-1]), widths, strict=True)
        self.groups = nn.Sequential(*(_Group(narrow, wide) for narrow, wide in sides))
        self.reset_classifier(num_classes)

    def get_classifier(self) -> nn.Module:
        return self.head

    def reset_classifier(self, num_classes: int) -> None:
        """A new classifier, of weights with a standard deviation of 1."""
        self.num_classes = num_classes
        if num_classes == 0:
            self.head: nn.Module = nn.Identity()
            return
        self.head = nn.Linear(self.num_features, num_classes, bias=False)
        nn.init.normal_(self.head.weight)

    def forward_features(self, images: Tensor) -> Tensor:
        """(B, C, H / 8, W / 8) of (B, 3, H, W), both sides rounded down."""
        features: Tensor = self.groups(F.gelu(self.whiten(images)))
        return features

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """Logits (B, num_classes), or what they are made of."""
        pooled = F.dropout(F.adaptive_max_pool2d(features, 1).flatten(1), self.drop_rate, self.training)
        if pre_logits or self.num_classes == 0:
            return pooled
        logits: Tensor = self.head(pooled) / self.num_features
        return logits

    def forward(self, images: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(images))


_CONFIG = {
    "num_classes": 10,
    "input_size": (3, 32, 32),
    "crop_pct": 1.0,
    "interpolation": "bilinear",
    "mean": (0.4914, 0.4822, 0.4465),
    "std": (0.2470, 0.2435, 0.2616),
    "first_conv": "whiten",
    "classifier": "head",
}
default_cfgs = generate_default_cfgs({name: dict(_CONFIG) for name in ("airbench_small", "airbench94", "airbench95")})


@register_model
def airbench94(pretrained: bool = False, **options: Any) -> Airbench:
    """236 MFLOP an image of 32 pixels, 2 M parameters."""
    return _build("airbench94", pretrained, {"widths": (64, 256, 256), **options})


@register_model
def airbench95(pretrained: bool = False, **options: Any) -> Airbench:
    """Wider groups at 2.6 times the cost, 5 M parameters."""
    return _build("airbench95", pretrained, {"widths": (128, 384, 384), **options})


@register_model
def airbench_small(pretrained: bool = False, **options: Any) -> Airbench:
    """The same at 55 % of the cost, 0.9 M parameters."""
    return _build("airbench_small", pretrained, {"widths": (64, 128, 256), **options})


def _build(name: str, pretrained: bool, options: dict[str, Any]) -> Airbench:
    model: Airbench = build_model_with_cfg(Airbench, name, pretrained, **options)
    return model
