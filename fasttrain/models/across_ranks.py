"""What the images of a step have in common with those of other processes, with gradients that go back to them."""

from typing import Any

import torch
from torch import Tensor, distributed

from fasttrain.base.process import rank, world_size


@torch.compiler.disable  # the gradient's way back over the ranks is not for a compiler
def of_all_ranks(own: Tensor) -> Tensor:
    """(W * B, …) of each rank's (B, …), in the order of the ranks; gradients go back to where values came from.

    All ranks call it, with the same shape. Their losses are taken to be averaged, so that the gradient of each value is
    the sum of what it means to the losses of all ranks.
    """
    everywhere: Tensor = _AllGather.apply(own)
    return everywhere


class _AllGather(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, own: Tensor) -> Tensor:
        parts = [torch.empty_like(own, memory_format=torch.contiguous_format) for _ in range(world_size())]
        distributed.all_gather(parts, own.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous().clone()
        distributed.all_reduce(total)
        return total.chunk(world_size())[rank()]
