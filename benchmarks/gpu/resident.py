"""A data set like CIFAR-10 in the device's memory: batches a second of crop, flip, normalise."""

import numpy as np
import torch

from gpu.common import Row, Task, repeated
from gpu.inputs import crops_of, jitter_of


def resident(task: Task) -> None:
    """One row a size of batch, with and without jitter; rows, crops and flips cross to the device for each batch."""
    from fasttrain.loading.device_resident import ResidentImages, load_resident
    from fasttrain.loading.device_stage import normalisation_of
    from fasttrain.loading.views import train_view

    count, side = (100, 32) if task.small else (50_000, 32)
    generator = np.random.default_rng(0)
    chunks = (generator.integers(0, 256, (count // 10, side, side, 3), np.uint8) for _ in range(10))
    pixels = load_resident(chunks, count, side, side, task.device)
    images = ResidentImages(pixels, normalisation_of(train_view(side)), torch.bfloat16)

    def measure(batch: int, with_jitter: bool) -> Row:
        crops = crops_of(batch, count, side, 4)
        jitter = jitter_of(batch) if with_jitter else None

        def make() -> object:
            return images.batch(crops.rows, corners=crops.corners, hflip=crops.hflip, jitter=jitter, padding="reflect")

        seconds = repeated(make, task.device, 0.2 if task.small else 3.0)["median"]
        return {"images_per_s": batch / seconds, "us_per_batch": 1e6 * seconds, "batch": batch}

    for batch in (16,) if task.small else (256, 1024, 8192):
        for with_jitter in (False, True):
            label = f"batches of {batch}{', jitter' if with_jitter else ''}"
            task.attempt(label, lambda b=batch, j=with_jitter: measure(b, j))
