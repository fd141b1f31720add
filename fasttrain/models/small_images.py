"""Encoders for images of 32 pixels, made of timm's parts: `create_model` knows them once this is imported.

timm's own begin with steps of 4 pixels and more, which leave nothing of such images.
"""

from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.resnet import BasicBlock, ResNet
from timm.models.vision_transformer import VisionTransformer
from torch import nn

_CONFIG = {
    "num_classes": 10,
    "input_size": (3, 32, 32),
    "crop_pct": 1.0,
    "interpolation": "bicubic",
    "mean": (0.4914, 0.4822, 0.4465),
    "std": (0.2470, 0.2435, 0.2616),
}
default_cfgs = generate_default_cfgs(
    {
        "resnet10_32": {**_CONFIG, "first_conv": "conv1", "classifier": "fc"},
        "vit_tiny_patch4_32": {
            **_CONFIG,
            "first_conv": "patch_embed.proj",
            "classifier": "head",
            "fixed_input_size": True,
        },
    }
)


@register_model
def resnet10_32(pretrained: bool = False, **options: Any) -> ResNet:
    """Four blocks of 16 to 128 channels."""
    given = {"block": BasicBlock, "layers": (1, 1, 1, 1), "channels": (16, 32, 64, 128), **options}
    model: ResNet = build_model_with_cfg(ResNet, "resnet10_32", pretrained, **given)
    # As He et al. have it for CIFAR (arXiv 1512.03385, section 4.2), at half the side to be fast.
    old = model.conv1
    model.conv1 = nn.Conv2d(old.in_channels, old.out_channels, 3, stride=2, padding=1, bias=False)
    nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
    model.maxpool = nn.Identity()
    return model


@register_model
def vit_tiny_patch4_32(pretrained: bool = False, **options: Any) -> VisionTransformer:
    """64 patches, 4 blocks of 128 wide, 4 heads; the mean over the patches is what the classifier sees."""
    given = {"img_size": 32, "patch_size": 4, "embed_dim": 128, "depth": 4, "num_heads": 4, **options}
    given = {"global_pool": "avg", "fc_norm": False, **given}
    model: VisionTransformer = build_model_with_cfg(VisionTransformer, "vit_tiny_patch4_32", pretrained, **given)
    return model
