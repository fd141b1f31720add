"""A model whose gradients are averaged over the ranks of a job."""

import inspect
from typing import Any

import torch
from torch import Tensor, distributed, nn

from fasttrain.base.process import world_size


def data_parallel(model: nn.Module, device: torch.device) -> nn.Module:
    """`model` under DDP; as it is for a single process."""
    if world_size() == 1:
        return model
    wrapper = nn.parallel.DistributedDataParallel
    # Each rank gathers statistics of its own samples; `average_buffers` joins them where they are used.
    renamed = "forward_sync_buffers" in inspect.signature(wrapper).parameters  # in torch 2.15
    options: dict[str, Any] = {"forward_sync_buffers" if renamed else "broadcast_buffers": False}
    wrapped = wrapper(model, device_ids=[device.index] if device.type == "cuda" else None, **options)
    if device.type == "cpu":
        wrapped.register_comm_hook(None, _average_in_rank_order)
    return wrapped


def _average_in_rank_order(_: None, bucket: distributed.GradBucket) -> torch.futures.Future[Tensor]:
    """Average a bucket of gradients, adding the ranks' one after the other.

    A ring adds each part of a bucket in another order, and DDP arranges its buckets anew after the first step of a
    process; so with more than two ranks a resumed run would differ in the last bits. (GPUs make no such promise.)
    """
    mine = bucket.buffer()
    parts = [torch.empty_like(mine) for _ in range(world_size())]

    def average(_: object) -> Tensor:
        total = parts[0]
        for part in parts[1:]:
            total += part
        return total.div_(world_size())

    return distributed.all_gather(parts, mine, async_op=True).get_future().then(average)
