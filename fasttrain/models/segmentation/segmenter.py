"""What all segmentation models have in common."""

from abc import ABC, abstractmethod

import torch.nn.functional as F
from torch import Tensor, nn

# Parameters that learn at the head's rate, as `fasttrain.models.heads.classifier_names` asks timm's models for them.
HEAD = "head"


class Segmenter(nn.Module, ABC):
    """Images (B, 3, H, W) to logits (B, C, H, W).

    Attributes:
        num_classes: C.
        classifier: name of the layer that gives the classes' scores.
        pretrained_cfg: as timm's models have it: which module is the head.
    """

    num_classes: int
    classifier: str

    def __init__(self, num_classes: int, classifier: str, head: tuple[str, ...] = (HEAD,)) -> None:
        super().__init__()
        self.num_classes, self.classifier = num_classes, classifier
        self.pretrained_cfg = {"classifier": head}

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, C, H, W)."""
        height, width = images.shape[-2:]
        return self.decode(self.forward_features(images), (height, width))

    @abstractmethod
    def forward_features(self, images: Tensor) -> list[Tensor]:
        """Feature maps (B, channels, H / stride, W / stride), finest first; the last one is the backbone's last."""

    @abstractmethod
    def decode(self, features: list[Tensor], size: tuple[int, int]) -> Tensor:
        """Logits (B, C, height, width) from what `forward_features` gave, for images of `size` (height, width)."""

    @property
    @abstractmethod
    def backbone(self) -> nn.Module:
        """The backbone, a timm model made with ``features_only``."""

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Compute the backbone's activations anew in the backward pass.

        Raises:
            AttributeError: it knows no such thing.
        """
        self.backbone.set_grad_checkpointing(enable)  # type: ignore[operator]


def resized(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps (B, C, h, w) at `size` (height, width): bilinear, corners not aligned."""
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    return F.interpolate(maps, size, mode="bilinear", align_corners=False)
