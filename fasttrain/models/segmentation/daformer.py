"""The head of DAFormer (Hoyer et al., CVPR 2022, section 3.2): all stages of a backbone fused by a pyramid of depthwise
separable dilated convolutions."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fasttrain.models.segmentation.segmenter import resized


class DAFormerHead(nn.Module):
    """Feature maps of several strides to logits at the finest one's size.

    Each is brought to as many channels by a linear layer and to the finest one's size, all are concatenated, pass
    through convolutions of several dilations side by side (depthwise separable above 1; no pooled branch), and these
    through one of 3 x 3.

    Args:
        channels: of the feature maps, finest first.
        embed: channels that each is brought to.
        width: of the pyramid's branches and of what follows.
        dropout: of whole channels before the classes.
    """

    def __init__(
        self,
        channels: Sequence[int],
        num_classes: int,
        embed: int = 256,
        width: int = 256,
        dilations: Sequence[int] = (1, 6, 12, 18),
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.embeds = nn.ModuleList(nn.Conv2d(count, embed, 1) for count in channels)
        fused = embed * len(channels)
        self.pyramid = nn.ModuleList(_branch(fused, width, dilation) for dilation in dilations)
        self.bottleneck = _convolution(width * len(dilations), width, 3)
        self.dropout = nn.Dropout2d(dropout)
        self.classify = nn.Conv2d(width, num_classes, 1)
        nn.init.normal_(self.classify.weight, std=0.01)
        nn.init.zeros_(self.classify.bias)  # type: ignore[arg-type]

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """(B, channels[i], h_i, w_i) each, to (B, C, h_0, w_0)."""
        height, width = features[0].shape[-2:]
        maps = [resized(embed(feature), (height, width)) for embed, feature in zip(self.embeds, features, strict=True)]
        fused = torch.cat(maps, 1)
        mixed = self.bottleneck(torch.cat([branch(fused) for branch in self.pyramid], 1))
        logits: Tensor = self.classify(self.dropout(mixed))
        return logits


def _branch(channels: int, width: int, dilation: int) -> nn.Sequential:
    if dilation == 1:
        return _convolution(channels, width, 1)
    return nn.Sequential(
        _convolution(channels, channels, 3, dilation, groups=channels), _convolution(channels, width, 1)
    )


def _convolution(channels: int, width: int, kernel: int, dilation: int = 1, groups: int = 1) -> nn.Sequential:
    """Convolution that keeps the size, batch normalisation, ReLU."""
    padding = dilation * (kernel // 2)
    convolution = nn.Conv2d(channels, width, kernel, padding=padding, dilation=dilation, groups=groups, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(convolution, nn.BatchNorm2d(width), nn.ReLU(inplace=True))
