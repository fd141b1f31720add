"""Whether each path of the device gives what its plain reference gives on the CPU."""

import numpy as np
import torch
from torch import Tensor

from fasttrain.kernels import device_stage
from fasttrain.kernels.pixels import Crops, FlatImages
from gpu.common import Row, Task, jpegs
from gpu.inputs import jitter_of, target_of, views_of

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def parity(task: Task) -> None:
    """One row a path: largest difference beyond what rounding explains (0 is needed), and whether it passed."""
    shapes = ((3, 5, 7),) if task.small else ((3, 5, 7), (17, 63, 65), (64, 224, 224))
    for count, height, width in shapes:
        pixels = torch.randint(0, 256, (count, height, width, 3), dtype=torch.uint8)
        for name, dtype in DTYPES.items():
            for label, jitter in (("", None), (" jitter", jitter_of(count))):
                task.attempt(
                    f"finish {name}{label} {count}x{height}x{width}",
                    lambda pixels=pixels, dtype=dtype, jitter=jitter: _finish(task, pixels, dtype, jitter),
                )
        for padding in ("black", "reflect"):
            task.attempt(f"gather {padding} {height}x{width}", lambda p=padding, x=pixels: _gather(task, x, p))
    for filter_ in ("bilinear", "bicubic"):
        for planar in (False, True):
            label = f"resample {filter_}{' planar' if planar else ''}"
            task.attempt(label, lambda f=filter_, p=planar: _resample(task, f, p))
    task.attempt("softmax_colsum", lambda: _softmax(task))


def _verdict(task: Task, ours: Tensor, reference: Tensor) -> Row:
    """Allowed: 2e-5 in float32, one unit in the last place more in 16 bits (see the kernels' tests)."""
    relative = 0 if ours.dtype == torch.float32 else torch.finfo(ours.dtype).eps
    ours, reference = ours.float().cpu(), reference.float().cpu()
    difference = (ours - reference).abs()
    beyond = (difference - 2e-5 - relative * reference.abs()).clamp(min=0).max().item()
    by = device_stage.choose(task.device)
    fast = by == "triton" or task.device.type != "cuda"  # plain torch beside itself would prove nothing
    return {"by": by, "difference": difference.max().item(), "beyond": beyond, "ok": fast and beyond == 0}


def _finish(task: Task, pixels: Tensor, dtype: torch.dtype, jitter: object) -> Row:
    reference = device_stage.finish(pixels, target_of(dtype), jitter, using="plain")  # type: ignore[arg-type]
    return _verdict(task, device_stage.finish(pixels.to(task.device), target_of(dtype), jitter), reference)  # type: ignore[arg-type]


def _gather(task: Task, pixels: Tensor, padding: str) -> Row:
    count, height, width = pixels.shape[:3]
    generator = np.random.default_rng(0)
    flips = generator.random((2, 2 * count)) < 0.5
    corners = generator.integers(-4, 5, (2 * count, 2))
    crops = Crops(generator.integers(0, count, 2 * count), corners, height, width, *flips, padding)  # type: ignore[arg-type]
    target = target_of(torch.bfloat16)
    reference = device_stage.gather(pixels, crops, target, using="plain")
    return _verdict(task, device_stage.gather(pixels.to(task.device), crops, target), reference)


def _resample(task: Task, filter_: str, planar: bool) -> Row:
    from io import BytesIO

    from PIL import Image

    photos = [np.asarray(Image.open(BytesIO(data))) for data in jpegs(task, 2 if task.small else 16)]
    sizes = np.array([photo.shape[1::-1] for photo in photos])
    offsets = np.concatenate([[0], np.cumsum(3 * sizes.prod(1))[:-1]])
    flat = np.concatenate([(photo.transpose(2, 0, 1) if planar else photo).ravel() for photo in photos])
    images = FlatImages(torch.from_numpy(flat), offsets, sizes, planar)
    geometry, size = views_of(sizes, filter_, 24 if task.small else 224), 24 if task.small else 224
    there = FlatImages(images.buffer.to(task.device), offsets, sizes, planar)
    target = target_of(torch.float32)
    reference = device_stage.resample(images, geometry, size, target, using="plain")
    row = _verdict(task, device_stage.resample(there, geometry, size, target), reference)
    rounded = device_stage.resample(images, geometry, size, using="plain").int()
    levels = (device_stage.resample(there, geometry, size).cpu().int() - rounded).abs()
    row["levels"], row["off_by_one"] = int(levels.max()), float(levels.float().mean())
    row["ok"] = row["ok"] and row["levels"] <= 1 and row["off_by_one"] < 0.01
    return row


def _softmax(task: Task) -> Row:
    from fasttrain.kernels.softmax_colsum import softmax_colsum
    from fasttrain.kernels.softmax_colsum_torch import TorchColumnSums

    generator = np.random.default_rng(0)
    shape = (1001, 37) if task.small else (50_003, 1000)
    worst = 0.0
    for dtype in (np.float32, np.float16):
        scores = generator.normal(0, 3, shape).astype(dtype)
        offsets = generator.normal(0, 1, shape[1])
        ours = TorchColumnSums(scores, str(task.device))(offsets, 0.7)
        reference = softmax_colsum(scores, offsets, 0.7)
        worst = max(worst, float((np.abs(ours - reference) / reference).max()))
    return {"by": "torch", "difference": worst, "ok": worst < 1e-5}
