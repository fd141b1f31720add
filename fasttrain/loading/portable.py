"""The reference backend: Pillow in threads. Needs no compiler, and its pixels are what the others are measured by."""

from concurrent.futures import CancelledError, Future, ThreadPoolExecutor

import numpy as np
from PIL import Image
from torch import Tensor

from fasttrain.base.process import be_nice
from fasttrain.loading.backend import Normalisation
from fasttrain.loading.dataset import ImageDataset
from fasttrain.loading.plan import BatchPlan

_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def render(pixels: np.ndarray, plan: BatchPlan, index: int) -> np.ndarray:
    """Carry the geometry of one plan entry out: (H, W, 3) uint8 in, the window (height, width, 3) uint8 out.

    Crop first, then resize: pixels outside the box have no part in it, as in torchvision.
    """
    left, top, width, height = plan.boxes[index].tolist()
    image = Image.fromarray(pixels[top : top + height, left : left + width])
    image = image.resize(tuple(plan.resized[index].tolist()), _FILTERS[plan.interpolation])
    x, y = plan.offsets[index].tolist()
    _, _, width, height = plan.places_of(index)
    window = np.asarray(image)[y : y + height, x : x + width]
    if plan.hflip[index]:
        window = window[:, ::-1]
    return window[::-1] if plan.vflip[index] else window


class PortableFilling:
    """A future for each sample of a batch."""

    def __init__(self, futures: dict[int, Future[None]]) -> None:
        self._futures = futures

    def result(self) -> dict[int, Exception]:
        failures = {position: _failure(future) for position, future in self._futures.items()}
        return {position: failure for position, failure in failures.items() if failure is not None}

    def cancel(self) -> None:
        for future in self._futures.values():
            future.cancel()


def _failure(future: Future[None]) -> Exception | None:
    try:
        future.result()
    except (CancelledError, Exception) as error:
        return error
    return None


class PortableBackend:
    """Persistent threads that decode and render samples into preallocated batches. Always exact.

    Args:
        nice: how much lower than the process's the threads' priority is.
    """

    normalises = False
    augments = False
    on_device = False
    uses_index = False

    def __init__(self, dataset: ImageDataset, threads: int, nice: int = 0) -> None:
        self._dataset = dataset
        self._pool = ThreadPoolExecutor(threads, "fasttrain-load", initializer=be_nice, initargs=(nice,))

    def submit(
        self, plan: BatchPlan, wanted: np.ndarray, out: Tensor, normalisation: Normalisation | None = None
    ) -> PortableFilling:
        assert normalisation is None
        positions, pixels = np.flatnonzero(wanted).tolist(), out.numpy()
        return PortableFilling(
            {position: self._pool.submit(self._fill, plan, position, pixels) for position in positions}
        )

    def _fill(self, plan: BatchPlan, position: int, out: np.ndarray) -> None:
        pixels = self._dataset.decode(int(plan.rows[position]))
        for entry in range(position, len(plan.rows), len(plan.samples)):
            left, top, width, height = plan.places_of(entry)
            out[entry, top : top + height, left : left + width] = render(pixels, plan, entry)

    def close(self, wait: bool = True) -> None:
        self._pool.shutdown(wait=wait, cancel_futures=True)
