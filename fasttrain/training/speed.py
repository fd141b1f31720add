"""Settings of torch that a training's speed depends on."""

from typing import cast

import torch
from torch import nn


def set_precision(tf32: bool) -> None:
    """The policy for float32 on GPUs, for the whole process; autocast types are not touched by it.

    With `tf32`, matrix products and convolutions round their factors to 10 bits of mantissa and add in float32. cuDNN
    may try its algorithms and take the fastest: a run's shapes do not change, or seldom.
    """
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = tf32
    torch.backends.cudnn.benchmark = True


def compiled(model: nn.Module, mode: str) -> nn.Module:
    """`model` under torch.compile; DDP around it is split at its buckets, so that sending overlaps with computing."""
    return cast(nn.Module, torch.compile(model, mode=None if mode == "default" else mode))


def has_fast_bf16() -> bool:
    """Whether this CPU has instructions for bf16 (AVX-512 or newer, on x86), by which oneDNN gains time."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
