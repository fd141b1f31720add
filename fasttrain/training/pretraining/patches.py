"""Patches of images: cut out, hidden at random, and where they lie."""

import torch
from torch import Tensor


def patchify(images: Tensor, side: int) -> Tensor:
    """(B, 3, H, W) to (B, N, side * side * 3): patches row by row, of each its pixels row by row, colours last."""
    batch, channels, height, width = images.shape
    rows, columns = height // side, width // side
    cut = images.reshape(batch, channels, rows, side, columns, side)
    return cut.permute(0, 2, 4, 3, 5, 1).reshape(batch, rows * columns, side * side * channels)


def unpatchify(patches: Tensor, side: int, rows: int, columns: int) -> Tensor:
    """(B, rows * columns, side * side * 3) to (B, 3, H, W): the way back."""
    batch, _, values = patches.shape
    cut = patches.reshape(batch, rows, columns, side, side, values // side**2)
    return cut.permute(0, 5, 1, 3, 2, 4).reshape(batch, -1, rows * side, columns * side)


def normalised_patches(patches: Tensor) -> Tensor:
    """Each patch less its mean, over its standard deviation (He et al., arXiv 2111.06377, section 4.1, norm-pix)."""
    return (patches - patches.mean(-1, keepdim=True)) / (patches.var(-1, keepdim=True) + 1e-6).sqrt()


def random_order(batch: int, count: int, device: torch.device) -> Tensor:
    """(B, N) int64: the patches of each image in an order of its own. The first ones are shown, the others hidden."""
    return torch.rand(batch, count, device=device).argsort(1)


def inverse_order(order: Tensor) -> Tensor:
    """(B, N) int64: the place of each patch in `order`."""
    places = torch.arange(order.shape[1], device=order.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, places)


def rows_of(tokens: Tensor, chosen: Tensor) -> Tensor:
    """(B, K, D) of tokens (B, N, D): those that `chosen` (B, K) int64 names."""
    return tokens.gather(1, chosen[..., None].expand(-1, -1, tokens.shape[-1]))


def sine_positions(width: int, rows: int, columns: int) -> Tensor:
    """(rows * columns, width) float32 positions of a grid, row by row: a half each for column and row, sines then
    cosines of wave lengths from 2 pi to 20000 pi (Vaswani et al., arXiv 1706.03762, in two dimensions as MAE has them).

    Raises:
        ValueError: `width` cannot be divided by 4.
    """
    if width % 4:
        raise ValueError(f"positions of two dimensions need a width that 4 divides, not {width}")
    rates = 10000.0 ** -(torch.arange(width // 4, dtype=torch.float64) / (width / 4))
    down, right = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    halves = []
    for place in (right, down):
        angles = place.reshape(-1, 1).double() * rates
        halves += [angles.sin(), angles.cos()]
    return torch.cat(halves, 1).float()
