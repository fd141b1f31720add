"""Whether the Loader gives on the device what Pillow gives on the CPU, whichever way the images take."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from gpu.common import Row, Task, psnr_row
from gpu.decoders import LEAST_PSNR, write_beton

SIZE = 224
EXACT_PSNR = (45.0, 35.0)  # of what the CPU decodes as Pillow does
Batches = list[tuple[Tensor, ...]]


def loading(task: Task) -> None:
    """One row a way and view: the same samples and labels, and pixels as they should be."""
    from fasttrain.loading.backend import available_backends
    from fasttrain.loading.views import eval_view, train_view

    size = 32 if task.small else SIZE
    views = {
        "training": train_view(size),
        "training, colour jitter": train_view(size, color_jitter=0.4, vflip=0.5),
        "evaluation": eval_view(size),
    }
    best = available_backends()[0]
    ways: dict[str, dict[str, Any]] = {best: {"backend": best, "index": False}, "dali": {"backend": "dali"}}
    if best == "native":
        ways["native by index"] = {"backend": best}
    if task.device.type == "cuda":
        ways["resident"] = {"resident": "gpu"}
    with TemporaryDirectory(prefix="fasttrain_gpu_") as folder:
        beton = write_beton(task, Path(folder), 12 if task.small else 96)
        for label, view in views.items():
            # Zero mean and unit deviation: pixels in 0–1.
            plain = view.model_copy(update={"mean": (0, 0, 0), "std": (1, 1, 1)})
            reference = _batches(beton, plain, torch.device("cpu"), {"backend": "portable"})
            for name, options in ways.items():
                task.attempt(
                    f"{name}, {label}", lambda n=name, o=options, v=plain, r=reference: _row(task, beton, v, n, o, r)
                )


def _row(task: Task, beton: Path, view: Any, name: str, options: dict[str, Any], reference: Batches) -> Row:
    from fasttrain.loading.optional import why_absent

    if name == "dali" and (reason := why_absent("dali")) is not None:
        raise ImportError(reason)
    ours = _batches(beton, view, task.device, options)
    same = all(
        torch.equal(a, b)
        for mine, other in zip(ours, reference, strict=True)
        for a, b in zip(mine[1:], other[1:], strict=True)
    )
    # Chroma is brought to the view's size by itself there, which noise as in made-up photos does not forgive.
    looser = name == "native by index" or (name == "dali" and task.device.type == "cuda")
    pixels = [[image for images, _, _, valid in batches for image in images[valid]] for batches in (ours, reference)]
    row = psnr_row(pixels[0], pixels[1], LEAST_PSNR if looser else EXACT_PSNR)
    return {**row, "same_samples": same, "ok": row["ok"] and same}


def _batches(beton: Path, view: Any, device: torch.device, options: dict[str, Any]) -> Batches:
    """An epoch, on the CPU. On a GPU each batch is read late, when the Loader has long made others: one whose memory
    were used again too early would show."""
    from fasttrain import Loader

    found = []
    with Loader(beton, 8, view=view, device=device, **options) as loader:
        for batch in loader:
            if device.type == "cuda":
                torch.cuda._sleep(20_000_000)  # cycles, some 10 ms
            found.append(tuple(part.clone() for part in batch))
            del batch
        return [tuple(part.cpu() for part in batch) for batch in found]
