"""Masked autoencoders: a ViT sees a quarter of an image's patches, a small decoder has to say what the others show.

He et al., "Masked Autoencoders Are Scalable Vision Learners", arXiv 2111.06377.
"""

from functools import partial
from typing import Any

import torch
from timm.models import checkpoint_seq
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from fasttrain.base.errors import ConfigError
from fasttrain.training.losses.base import Loss
from fasttrain.training.pretraining.features import FeatureStatistics
from fasttrain.training.pretraining.patches import (
    inverse_order,
    normalised_patches,
    patchify,
    random_order,
    rows_of,
    sine_positions,
)
from fasttrain.training.pretraining.settings import MaeSettings


class MaskedAutoencoder(nn.Module):
    """timm's ViT and a decoder of blocks of the same kind; both know places by fixed sines.

    Args:
        encoder: a ViT without classifier; its positions are replaced, and do not learn.
        fresh: whether its weights are random ones, which then are drawn as the authors draw them.

    Attributes:
        statistics: of the encoder's features, the mean over the patches that it has seen.

    Raises:
        ConfigError: not a ViT of patches at places of their own, or widths that do not fit.
    """

    def __init__(self, encoder: nn.Module, settings: MaeSettings, fresh: bool = True) -> None:
        super().__init__()
        self.encoder = vit = _checked(encoder)
        self.side: int = vit.patch_embed.patch_size[0]
        self.grid: tuple[int, int] = vit.patch_embed.grid_size
        self.prefix: int = vit.num_prefix_tokens
        self.shown = _shown(self.grid[0] * self.grid[1], settings.mask_ratio)
        self.norm_pix, width = settings.norm_pix, settings.decoder_width
        try:
            _fix_positions(vit)
            positions = sine_positions(width, *self.grid)
        except ValueError as error:
            raise ConfigError(f"mae: {error}") from None
        # Where the final norm comes after pooling, the tokens themselves are normalised by it here.
        self._norm = "fc_norm" if isinstance(vit.norm, nn.Identity) else "norm"
        if self._norm == "norm":
            for parameter in vit.fc_norm.parameters():
                parameter.requires_grad_(False)
        self.decoder_embed = nn.Linear(vit.embed_dim, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.decoder_positions = nn.Parameter(positions[None], requires_grad=False)
        norm = partial(nn.LayerNorm, eps=1e-6)
        blocks = [
            Block(width, settings.decoder_heads, qkv_bias=True, norm_layer=norm) for _ in range(settings.decoder_depth)
        ]
        self.decoder = nn.Sequential(*blocks, norm(width))
        self.predict = nn.Linear(width, 3 * self.side**2)
        nn.init.normal_(self.mask_token, std=0.02)
        for part in (self.decoder_embed, self.decoder, self.predict):
            part.apply(_draw)
        if fresh:
            _draw_encoder(vit)
        self.statistics = FeatureStatistics()

    def no_weight_decay(self) -> set[str]:
        """What the encoder excludes."""
        return {f"encoder.{name}" for name in self.encoder.no_weight_decay()}

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, 1) float32: the mean squared error of each image's hidden patches."""
        order = random_order(len(images), self.grid[0] * self.grid[1], images.device)
        tokens = self.encode(images, order[:, : self.shown])
        if self.training:
            self.statistics.add(tokens[:, self.prefix :].float().mean(1))
        predicted = self.decode(tokens, order)
        with torch.autocast(images.device.type, enabled=False):
            return self._loss(images.float(), predicted.float(), order)[:, None]

    def encode(self, images: Tensor, chosen: Tensor) -> Tensor:
        """(B, prefix + K, D) of the patches `chosen` (B, K): no other patch has a part in it."""
        vit = self.encoder
        tokens = vit._pos_embed(vit.patch_embed(images))
        tokens = torch.cat([tokens[:, : self.prefix], rows_of(tokens[:, self.prefix :], chosen)], 1)
        tokens = vit.norm_pre(tokens)
        tokens = checkpoint_seq(vit.blocks, tokens) if vit.grad_checkpointing else vit.blocks(tokens)
        result: Tensor = getattr(vit, self._norm)(tokens)
        return result

    def decode(self, tokens: Tensor, order: Tensor) -> Tensor:
        """(B, N, 3 * side * side) for all patches, of the tokens of those that come first in `order` (B, N)."""
        tokens = self.decoder_embed(tokens)
        prefix, shown = tokens[:, : self.prefix], tokens[:, self.prefix :]
        hidden = self.mask_token.to(tokens.dtype).expand(len(tokens), order.shape[1] - self.shown, -1)
        patches = rows_of(torch.cat([shown, hidden], 1), inverse_order(order)) + self.decoder_positions
        decoded: Tensor = self.decoder(torch.cat([prefix, patches], 1))
        result: Tensor = self.predict(decoded[:, self.prefix :])
        return result

    def _loss(self, images: Tensor, predicted: Tensor, order: Tensor) -> Tensor:
        """(B,)"""
        target = patchify(images, self.side)
        target = normalised_patches(target) if self.norm_pix else target
        errors = (predicted - target).square().mean(-1)
        return errors.gather(1, order[:, self.shown :]).mean(1)


class Given(Loss):
    """Losses that the model itself has computed."""

    def __call__(self, logits: Tensor, labels: Tensor, soft: Tensor | None) -> Tensor:
        """(R,) of `logits` (1, R, 1)."""
        return logits[0, :, 0]


def _checked(encoder: nn.Module) -> Any:
    """The ViT, untyped: what timm's has is told by no type."""
    if not isinstance(encoder, VisionTransformer):
        raise ConfigError(f"mae needs one of timm's VisionTransformers, and this is a {type(encoder).__name__}")
    patch = encoder.patch_embed
    if encoder.pos_embed is None or encoder.attn_pool is not None or not hasattr(patch, "patch_size"):
        raise ConfigError("mae needs a ViT with a table of positions and without attention pooling; take another model")
    if patch.patch_size[0] != patch.patch_size[1]:
        raise ConfigError(f"mae needs square patches, not {patch.patch_size[0]} x {patch.patch_size[1]}")
    return encoder


def _shown(patches: int, mask_ratio: float) -> int:
    shown = int(patches * (1 - mask_ratio))
    if not 0 < shown < patches:
        raise ConfigError(
            f"mae.mask_ratio {mask_ratio} leaves {shown} of {patches} patches; take smaller patches, larger images or "
            "another ratio"
        )
    return shown


@torch.no_grad()
def _fix_positions(vit: Any) -> None:
    """Put sines into the encoder's table; tokens that are no patches have zeros."""
    table = vit.pos_embed
    table.zero_()
    rows, columns = vit.patch_embed.grid_size
    table[:, table.shape[1] - rows * columns :] = sine_positions(table.shape[2], rows, columns)
    table.requires_grad_(False)


def _draw(module: nn.Module) -> None:
    """The authors' random weights."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


@torch.no_grad()
def _draw_encoder(vit: Any) -> None:
    vit.blocks.apply(_draw)
    projection = vit.patch_embed.proj.weight
    projection.copy_(nn.init.xavier_uniform_(torch.empty_like(projection).flatten(1)).view_as(projection))
    for token in (vit.cls_token, vit.reg_token):
        if token is not None:
            nn.init.normal_(token, std=0.02)
