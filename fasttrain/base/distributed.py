"""The process group of a torchrun job. Torch is imported only when there is a group to make."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from fasttrain.base.process import default_threads, local_rank, rank, world_size

if TYPE_CHECKING:
    import torch


@contextmanager
def process_group(device: str | None = None) -> Iterator["torch.device"]:
    """Join the job's process group (a no-op for a single process) and yield this rank's device.

    Args:
        device: ``cpu``, ``cuda``, ``cuda:N`` or None for the best one there is. Under torchrun each rank takes the GPU
            of its local rank.
    """
    import torch

    # torch looks at the CPU affinity but not at a container's quota, and more threads than cores run many times slower.
    torch.set_num_threads(min(torch.get_num_threads(), default_threads()))
    chosen = _device(torch, device)
    if world_size() == 1:
        yield chosen
        return
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    torch.distributed.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    try:
        yield chosen
    finally:
        torch.distributed.destroy_process_group()


def _device(torch: Any, device: str | None) -> "torch.device":
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and world_size() > 1:
        device = f"cuda:{local_rank()}"
    return torch.device(device)


def sum_over_ranks(tensor: "torch.Tensor") -> "torch.Tensor":
    """Sum a tensor of any shape over all ranks, in place; unchanged for a single process."""
    if world_size() > 1:
        import torch

        torch.distributed.all_reduce(tensor)
    return tensor


def average_buffers(module: "torch.nn.Module") -> None:
    """Make a model's floating-point buffers (BatchNorm statistics) the mean over all ranks, in place.

    DDP keeps only parameters in step: each rank gathers statistics of its own samples, and without this every rank
    would evaluate another model.
    """
    if world_size() > 1:
        for buffer in module.buffers():
            if buffer.is_floating_point():
                sum_over_ranks(buffer)
                buffer /= world_size()


def gather_on_main(value: Any) -> list[Any] | None:
    """Collect a picklable value of every rank on the main one, in rank order; None on the others."""
    if world_size() == 1:
        return [value]
    import torch

    gathered: list[Any] | None = [None] * world_size() if rank() == 0 else None
    torch.distributed.gather_object(value, gathered)
    return gathered


def wait_for_all() -> None:
    """Return once every rank has come here."""
    if world_size() > 1:
        import torch

        torch.distributed.barrier()
