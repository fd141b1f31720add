"""The process group of a torchrun job. Torch is imported only when there is a group to make."""

import atexit
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from fasttrain.base.errors import ConfigError, LaunchError
from fasttrain.base.meeting import store_of_life
from fasttrain.base.memory import keep_freed_memory
from fasttrain.base.process import check_launch, default_threads, local_rank, rank, world_size

if TYPE_CHECKING:
    import torch


@contextmanager
def process_group(device: str | None = None) -> Iterator["torch.device"]:
    """Join the job's process group (a no-op for a single process) and yield this rank's device.

    The group is made once and left at the process's end, since it cannot be made again: the ranks would find each
    other's old addresses. After an error it is left at once, so that the others do not wait.

    Args:
        device: ``cpu``, ``cuda``, ``cuda:N`` or None for the best one there is. Under torchrun each rank takes the GPU
            of its local rank.

    Raises:
        ConfigError: there is no such device here.
        LaunchError: the processes cannot find each other, or another one ended before its time.
    """
    import torch

    check_launch()

    # torch looks at the CPU affinity but not at a container's quota, and more threads than cores run many times slower.
    torch.set_num_threads(min(torch.get_num_threads(), default_threads()))
    chosen = _device(torch, device)
    if chosen.type == "cpu":
        keep_freed_memory()
    if world_size() == 1:
        yield chosen
        return
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    with _explained(torch):
        if not torch.distributed.is_initialized():
            backend, own, all_ = "nccl" if chosen.type == "cuda" else "gloo", rank(), world_size()
            torch.distributed.init_process_group(backend, store=store_of_life(own, all_), rank=own, world_size=all_)
            atexit.register(_leave_group)
        try:
            yield chosen
        except BaseException:
            _leave_group()
            raise


def _leave_group() -> None:
    import torch

    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


@contextmanager
def _explained(torch: Any) -> Iterator[None]:
    """Say in one sentence that another process was lost; the cause is what that one has printed."""
    try:
        yield
    except RuntimeError as error:  # what gloo raises has no class of its own, but names the file that it comes from
        if not isinstance(error, torch.distributed.DistError) and "gloo" not in str(error):
            raise
        reason = str(error).splitlines()[0]
        raise LaunchError(
            f"another process of the job ended or was lost, so this one ends too; see that one's message ({reason})"
        ) from error


def _device(torch: Any, device: str | None) -> "torch.device":
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and world_size() > 1:
        device = f"cuda:{local_rank()}"
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise ConfigError(f"there is no device {device!r}; use cpu, cuda or cuda:N") from None
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if chosen.type == "cuda" and not found:
        raise ConfigError(f"device {device} was asked for, but torch finds no usable GPU; use device cpu")
    if chosen.type == "cuda" and (chosen.index or 0) >= found:
        raise ConfigError(f"device {device} was asked for, but there are {found} GPUs, counted from cuda:0")
    return chosen


def sum_over_ranks(tensor: "torch.Tensor") -> "torch.Tensor":
    """Sum a tensor of any shape over all ranks, in place; unchanged for a single process."""
    if world_size() > 1:
        import torch

        torch.distributed.all_reduce(tensor)
    return tensor


def average_buffers(module: "torch.nn.Module") -> None:
    """Make a model's floating-point buffers (BatchNorm statistics) the mean over all ranks, in place.

    Training keeps only parameters in step; without this every rank would evaluate another model.
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


def gather_on_all(value: Any) -> list[Any]:
    """Collect a picklable value of every rank on every rank, in rank order."""
    if world_size() == 1:
        return [value]
    import torch

    gathered: list[Any] = [None] * world_size()
    torch.distributed.all_gather_object(gathered, value)
    return gathered


def require_agreement(facts: dict[str, Any]) -> None:
    """Compare what the ranks have before them: unequal files or options would mean unequal steps, and so a hang.

    Args:
        facts: picklable values by what they are, as the sentence shall name them. To be called by all ranks.

    Raises:
        LaunchError: some differ. It is raised on all ranks.
    """
    everywhere = gather_on_all(facts)
    for other, theirs in enumerate(everywhere):
        different = [name for name, value in everywhere[0].items() if theirs.get(name) != value]
        if different:
            raise LaunchError(
                f"process {other} has another {different[0]} than process 0; give all machines the same files and "
                "options (and one storage for the run's folder)"
            )


def wait_for_all() -> None:
    """Return once every rank has come here."""
    if world_size() > 1:
        import torch

        torch.distributed.barrier()
