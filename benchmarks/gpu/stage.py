"""The device stage's memory throughput, beside a copy of as many bytes on the same device."""

from collections.abc import Callable

import numpy as np
import torch

from fasttrain.kernels import device_stage
from fasttrain.kernels.pixels import FlatImages
from gpu.common import Row, Task, repeated
from gpu.inputs import crops_of, jitter_of, target_of, views_of


def stage(task: Task) -> None:
    """One row a kernel. Bytes are those that have to move: each pixel read once (twice with contrast) and written once.

    Batches are large (some GB a call) so that neither caches nor the launching of kernels count.
    """
    count, side = (4, 32) if task.small else (4096, 224)
    pixels = torch.randint(0, 256, (count, side, side, 3), dtype=torch.uint8, device=task.device)
    copies: dict[int, float] = {}  # seconds by bytes

    def measure(work: Callable[[], object], moved: int, images: int) -> Row:
        if moved not in copies:
            source = torch.zeros(moved // 2, dtype=torch.uint8, device=task.device)
            goal = torch.empty_like(source)
            copies[moved] = repeated(lambda: goal.copy_(source), task.device, 0.2 if task.small else 0.5)["median"]
        found = repeated(work, task.device, 0.2 if task.small else 1.0)
        return {
            "gb_per_s": moved / found["median"] / 1e9,
            "images_per_s": images / found["median"],
            "ms": 1000 * found["median"],
            "ms_min": 1000 * found["min"],
            "ms_max": 1000 * found["max"],
            "share_of_copy": copies[moved] / found["median"],
        }

    jitters = {
        "": None,
        " brightness, saturation": jitter_of(count, hue=0, contrast=False),
        " brightness, contrast, saturation": jitter_of(count, hue=0),
        " brightness, contrast, saturation, hue": jitter_of(count),
    }
    chosen = device_stage.choose(task.device)
    for dtype in (torch.bfloat16, torch.float32):
        out = torch.empty(pixels.shape, dtype=dtype, device=task.device)
        for label, jitter in jitters.items():
            reads = 2 if "contrast" in label else 1
            moved = pixels.numel() * (reads + dtype.itemsize)
            for using in dict.fromkeys((chosen, "plain")):
                if using == "plain" and dtype == torch.float32:
                    continue
                task.attempt(
                    f"finish {str(dtype)[6:]}{label} ({using})",
                    lambda d=dtype, j=jitter, o=out, m=moved, u=using: measure(
                        lambda: device_stage.finish(pixels, target_of(d), j, out=o, using=u), m, count
                    ),
                )
    del out
    _gather_and_resample(task, measure, pixels)


def _gather_and_resample(
    task: Task, measure: Callable[[Callable[[], object], int, int], Row], pixels: torch.Tensor
) -> None:
    count, side = pixels.shape[:2]
    target = target_of(torch.bfloat16)
    crops = crops_of(count, count, side, 4)
    moved = pixels.numel() * 3
    task.attempt("gather bfloat16", lambda: measure(lambda: device_stage.gather(pixels, crops, target), moved, count))
    images, width, height = (2, 50, 40) if task.small else (1024, 500, 375)
    buffer = torch.randint(0, 256, (images * width * height * 3,), dtype=torch.uint8, device=task.device)
    offsets = np.arange(images) * (width * height * 3)
    flat = FlatImages(buffer, offsets, np.tile([width, height], (images, 1)))
    for filter_ in ("bilinear", "bicubic"):
        views = views_of(flat.sizes, filter_, side)
        boxed = int(3 * views.boxes[:, 2:].prod(1).sum()) + images * side * side * 6
        task.attempt(
            f"resample bfloat16 {filter_}, {width}x{height} to {side}",
            lambda v=views, b=boxed: measure(lambda: device_stage.resample(flat, v, side, target), b, images),
        )
