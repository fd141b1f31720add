"""A model whose gradients are averaged over the ranks of a job."""

import inspect
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook

from fasttrain.base.process import world_size
from fasttrain.training.settings import DdpSettings


def data_parallel(model: nn.Module, device: torch.device, settings: DdpSettings) -> nn.Module:
    """`model` under DDP; as it is for a single process."""
    if world_size() == 1:
        return model
    wrapper = nn.parallel.DistributedDataParallel
    # Each rank gathers statistics of its own samples; `average_buffers` joins them where they are used.
    renamed = "forward_sync_buffers" in inspect.signature(wrapper).parameters  # in torch 2.15
    options: dict[str, Any] = {"forward_sync_buffers" if renamed else "broadcast_buffers": False}
    options["device_ids"] = [device.index] if device.type == "cuda" else None
    # Gradients lie in the buckets that are sent, so that nothing is copied.
    wrapped = wrapper(model, gradient_as_bucket_view=True, static_graph=settings.static_graph, **options)
    if device.type == "cpu":
        dtype = torch.bfloat16 if settings.compression == "bf16" else None
        wrapped.register_comm_hook(dtype, _average_in_rank_order)
    elif settings.compression == "bf16":
        wrapped.register_comm_hook(None, bf16_compress_hook)
    return wrapped


def _average_in_rank_order(dtype: torch.dtype | None, bucket: distributed.GradBucket) -> torch.futures.Future[Tensor]:
    """Average a bucket of gradients, adding the ranks' one after the other.

    A ring adds each part of a bucket in another order, and DDP arranges its buckets anew after the first step of a
    process; so with more than two ranks a resumed run would differ in the last bits. (GPUs make no such promise.)

    Args:
        dtype: in which gradients are sent; None for their own.
    """
    mine = bucket.buffer() if dtype is None else bucket.buffer().to(dtype)
    parts = [torch.empty_like(mine) for _ in range(world_size())]

    def average(_: object) -> Tensor:
        total = parts[0].to(bucket.buffer().dtype)
        for part in parts[1:]:
            total += part
        return total.div_(world_size())

    return distributed.all_gather(parts, mine, async_op=True).get_future().then(average)
