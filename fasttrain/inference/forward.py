"""One pass of a model over a loader."""

from collections.abc import Callable, Iterator
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from fasttrain.base.console import progress
from fasttrain.base.errors import ConfigError
from fasttrain.inference.memory import is_out_of_memory
from fasttrain.loading.batch import Batch
from fasttrain.loading.loader import Loader

Amp = Literal["off", "bf16", "fp16"]
AMP_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def resolve_amp(setting: str, device: torch.device | str) -> Amp:
    """The precision that a setting means on a device: ``auto`` is bf16 on CUDA and off elsewhere.

    Raises:
        ConfigError: not a known setting.
    """
    if setting == "auto":
        return "bf16" if torch.device(device).type == "cuda" else "off"
    for known in get_args(Amp):
        if setting == known:
            return known
    raise ConfigError(f"amp {setting!r} is not known; choose auto, {', '.join(get_args(Amp))}")


def autocast(device: torch.device | str, amp: Amp) -> torch.autocast:
    """The autocast context of a precision setting; ``off`` gives one that does nothing."""
    kind = torch.device(device).type
    return torch.autocast(kind, dtype=AMP_DTYPES.get(amp), enabled=amp != "off")


@torch.no_grad()
def refusal(call: Callable[[Tensor], Tensor], images: Tensor, amp: Amp) -> str | None:
    """What a model says of images that it does not take, such as those of another size; None if it takes them."""
    try:
        with autocast(images.device, amp):
            call(images)
    except (AssertionError, IndexError, RuntimeError, ValueError) as error:  # timm asserts, torch and others raise
        if is_out_of_memory(error):
            raise
        return str(error).partition("\n")[0].rstrip(".") or type(error).__name__
    return None


@torch.inference_mode()
def forward_batches(
    model: nn.Module, loader: Loader, amp: Amp = "off", label: str = "predict"
) -> Iterator[tuple[Batch, Tensor]]:
    """Yield each batch of `loader` with the model's logits float32 (B, C), showing progress."""
    was_training = model.training
    model.eval()
    try:
        # Counted by this rank's full batches: how many of the last one are padding is known only to the device.
        with progress(label, len(loader) * loader.batch_size) as bar:
            for batch in loader:
                with autocast(batch.images.device, amp):
                    logits = model(batch.images)
                yield batch, logits.float()
                bar.advance(len(logits))
    finally:
        model.train(was_training)
