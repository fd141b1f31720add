"""What it looks like when a device, or the host, runs out of memory."""

import torch


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch has run out of a device's memory, or of the host's."""
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)
    )
