"""What to say when a batch does not fit into memory: the size that would."""

import torch

from fasttrain.base.errors import TrainingError
from fasttrain.inference.memory import is_out_of_memory
from fasttrain.loading.batch import Batch, split_batch
from fasttrain.training.stepper import Stepper


def too_large(stepper: Stepper, batch: Batch) -> TrainingError:
    """The error for a batch that did not fit. Halves are tried until one does; nothing is learned from them."""
    whole = stepper.micro_batch or len(batch.labels)
    what = f"{whole} images do not fit into the memory of {stepper.device} at a time"
    size = whole // 2
    while size >= 1:
        if _fits(stepper, split_batch(batch, size)[0]):
            smaller = max(1, size // stepper.images_a_sample)
            return TrainingError(
                f"{what}, but {size} do: --set micro_batch={size} takes the same steps in parts of that size, "
                f"--batch-size {smaller} (or a batch_schedule up to it) smaller ones"
            )
        size //= 2
    return TrainingError(
        f"{what}, and not even one does; use --set grad_checkpointing=true, --amp bf16, a smaller --size or model"
    )


def _fits(stepper: Stepper, batch: Batch) -> bool:
    stepper.optimizer.zero_grad()
    if stepper.device.type == "cuda":
        torch.cuda.empty_cache()
    try:
        stepper.try_batch(batch)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return False
    finally:
        stepper.optimizer.zero_grad()
    return True
