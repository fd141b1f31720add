"""The reference backend: Pillow in threads. Needs no compiler, and its pixels are what the others are measured by."""

from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from PIL import Image

from fasttrain.loading.dataset import ImageDataset
from fasttrain.loading.plan import BatchPlan

_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def render(pixels: np.ndarray, plan: BatchPlan, index: int) -> np.ndarray:
    """Carry the geometry of one plan entry out: (H, W, 3) uint8 in, (size, size, 3) uint8 out.

    Crop first, then resize: pixels outside the box have no part in it, as in torchvision.
    """
    left, top, width, height = plan.boxes[index].tolist()
    image = Image.fromarray(pixels[top : top + height, left : left + width])
    image = image.resize(tuple(plan.resized[index].tolist()), _FILTERS[plan.interpolation])
    x, y = plan.offsets[index].tolist()
    window = np.asarray(image)[y : y + plan.size, x : x + plan.size]
    if plan.hflip[index]:
        window = window[:, ::-1]
    return window[::-1] if plan.vflip[index] else window


class PortableBackend:
    """Persistent threads that decode and render samples into preallocated batches."""

    def __init__(self, dataset: ImageDataset, threads: int) -> None:
        self._dataset = dataset
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="fasttrain-load")

    def submit(self, plan: BatchPlan, wanted: np.ndarray, out: np.ndarray) -> dict[int, Future[None]]:
        """Start filling the `wanted` ((B,) bool) entries of `out` ((B, size, size, 3) uint8): a future for each.

        An image that cannot be decoded fails its future with `ImageError`, and its entry of `out` stays as it is.
        """
        positions = np.flatnonzero(wanted).tolist()
        return {position: self._pool.submit(self._fill, plan, position, out[position]) for position in positions}

    def _fill(self, plan: BatchPlan, index: int, out: np.ndarray) -> None:
        out[:] = render(self._dataset.decode(int(plan.rows[index])), plan, index)

    def close(self, wait: bool = True) -> None:
        """End the threads; work that has not begun is dropped."""
        self._pool.shutdown(wait=wait, cancel_futures=True)
