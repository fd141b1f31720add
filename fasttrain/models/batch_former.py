"""BatchFormer: the images of a batch learn from each other, in training alone."""

from pydantic import Field
from torch import Tensor, nn

from fasttrain.base.config import Settings
from fasttrain.base.errors import ConfigError
from fasttrain.base.process import rank, world_size
from fasttrain.models.across_ranks import of_all_ranks


class BatchFormerSettings(Settings):
    """A transformer encoder over the images of a batch (see `BatchFormer`).

    Attributes:
        layers: of the encoder; 0 for none.
        heads: of its attention.
        width: of its feed-forward part; None for the number of features.
        dropout: inside of it.
        across_ranks: the batch is that of all processes, not that of each.
    """

    layers: int = Field(default=0, ge=0)
    heads: int = Field(default=4, ge=1)
    width: int | None = Field(default=None, ge=1)
    dropout: float = Field(default=0.5, ge=0, lt=1)
    across_ranks: bool = False


class BatchFormer(nn.Module):
    """The encoder of BatchFormer (Hou et al., CVPR 2022, arXiv 2203.01522): the batch is its sequence, in no order.

    Images that could not be decoded are part of it, as they are of the statistics of BatchNorm.

    Args:
        features: D, the length of an image's features.

    Raises:
        ConfigError: the attention's heads do not divide D.
    """

    def __init__(self, features: int, settings: BatchFormerSettings) -> None:
        super().__init__()
        if features % settings.heads:
            raise ConfigError(f"batch_former.heads {settings.heads} must divide the model's {features} features")
        width = settings.width or features
        layer = nn.TransformerEncoderLayer(features, settings.heads, width, settings.dropout)
        self.encoder = nn.TransformerEncoder(layer, settings.layers, enable_nested_tensor=False)
        self.across_ranks = settings.across_ranks

    def forward(self, features: Tensor) -> Tensor:
        """(B, D) to (B, D)."""
        if not (self.across_ranks and world_size() > 1):
            result: Tensor = self.encoder(features[:, None])[:, 0]
            return result
        everywhere = of_all_ranks(features.float()).to(features.dtype)
        own = slice(rank() * len(features), (rank() + 1) * len(features))
        result = self.encoder(everywhere[:, None])[own, 0]
        return result
