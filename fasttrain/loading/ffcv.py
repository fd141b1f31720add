"""The FFCV backend: FFCV's compiled pipeline on the same `.beton`, with FFCV's own crops and flips."""

import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fasttrain.base.errors import LoaderError
from fasttrain.loading.backend import Normalisation
from fasttrain.loading.dataset import ImageDataset
from fasttrain.loading.open_dataset import BetonDataset
from fasttrain.loading.plan import BatchPlan
from fasttrain.loading.views import TrainView, View

_one_at_a_time = threading.Lock()  # numba's plainest thread pool ends the process when it is entered twice


@contextmanager
def _torch_threads_kept() -> Iterator[None]:
    """FFCV sets torch's number of threads, on import even to 1."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)


with _torch_threads_kept():
    from ffcv.fields.rgb_image import CenterCropRGBImageDecoder, RandomResizedCropRGBImageDecoder, RGBImageField
    from ffcv.loader import Loader as FfcvLoader
    from ffcv.loader.epoch_iterator import EpochIterator
    from ffcv.reader import Reader
    from ffcv.transforms import RandomHorizontalFlip, ToTensor


class FfcvBackend:
    """FFCV decodes, crops, resizes and flips; order, ids, padding and what follows the pixels are the Loader's.

    Of the plan only the rows are used, so `seed` determines the order and not the crops, which come from numba's
    generators. FFCV decodes with libjpeg's fast inverse DCT and resizes with OpenCV (areas down, linear up), which is
    less soft than an antialiased filter: 29 dB against Pillow on average, 20 at worst (60 ImageNet photos, eval view of
    224 pixels). It does not notice a broken image, and gives the pixels that were decoded
    into the same place before.

    Batches are run one after the other on a thread of ours, and not on that of FFCV's own iterator, which waits for
    ever when one fails.

    Raises:
        LoaderError: the data set or view is not one that FFCV can read or make.
    """

    normalises = False
    augments = False
    on_device = False
    uses_index = False

    def __init__(self, dataset: ImageDataset, threads: int, view: View) -> None:
        _refuse_others(dataset, view)
        self._path, self._threads, self._view = dataset.name, threads, view
        self._pipeline: _Pipeline | None = None  # compiled at the first batch
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="fasttrain-ffcv")

    def submit(
        self, plan: BatchPlan, wanted: np.ndarray, out: Tensor, normalisation: Normalisation | None = None
    ) -> "FfcvFilling":
        assert normalisation is None
        return FfcvFilling(wanted, self._worker.submit(self._fill, plan, wanted, out))

    def close(self, wait: bool = True) -> None:
        self._worker.shutdown(wait=wait, cancel_futures=True)
        if wait:
            self._pipeline = None

    def _fill(self, plan: BatchPlan, wanted: np.ndarray, out: Tensor) -> None:
        if not wanted.any():
            return
        with _one_at_a_time, _torch_threads_kept():
            if self._pipeline is None:
                self._pipeline = _Pipeline(self._path, self._view, self._threads)
            self._pipeline.make_room(len(plan.samples), plan.size)
            for pixels in out.unflatten(0, (plan.views, -1)):
                pixels[torch.from_numpy(wanted)] = self._pipeline.run(plan.samples[wanted])


class FfcvFilling:
    """A batch in the hands of the backend's thread."""

    def __init__(self, wanted: np.ndarray, filled: "Future[None]") -> None:
        self._wanted, self._filled = wanted, filled

    def result(self) -> dict[int, Exception]:
        try:
            self._filled.result()
        except (CancelledError, Exception) as error:
            return dict.fromkeys(np.flatnonzero(self._wanted).tolist(), error)
        return {}

    def cancel(self) -> None:
        self._filled.cancel()


class _Pipeline:
    """FFCV's pipeline for the images of a file, called batch by batch."""

    def __init__(self, path: str, view: View, threads: int) -> None:
        handlers = Reader(path).handlers
        image = next(name for name, handler in handlers.items() if isinstance(handler, RGBImageField))
        self._decoder, *others = _operations(view)
        self._loader = FfcvLoader(
            path,
            batch_size=1,
            num_workers=threads,
            os_cache=True,
            # None leaves a field out.
            pipelines={**dict.fromkeys(handlers), image: [self._decoder, *others, ToTensor()]},
            indices=np.zeros(1, np.uint64),
            drop_last=False,
            batches_ahead=-1,  # memory for two more than this: each batch is copied before the next one is made
        )
        self._iterator: _Unstarted | None = None

    def make_room(self, count: int, size: int) -> None:
        """Have memory for `count` images of `size` pixels. What was compiled serves all sizes."""
        if self._iterator is not None and count <= self._loader.batch_size and self._decoder.output_size[0] == size:
            return
        self._loader.batch_size, self._decoder.output_size = count, (size, size)
        self._iterator = _Unstarted(self._loader, [])

    def run(self, rows: np.ndarray) -> Tensor:
        """(n, size, size, 3) uint8 of `rows`, valid until the next call; there must be room for them."""
        assert self._iterator is not None
        pixels: Tensor = self._iterator.run_pipeline(0, rows.astype(np.uint64), 0, None)[0]
        return pixels


class _Unstarted(EpochIterator):
    """FFCV's iterator without its thread: `run_pipeline` does all of the work."""

    def start(self) -> None:
        pass


def _operations(view: View) -> list[Any]:
    size = (view.size, view.size)
    if not isinstance(view, TrainView):
        return [CenterCropRGBImageDecoder(size, ratio=view.crop_pct)]
    decoder = RandomResizedCropRGBImageDecoder(size, scale=view.scale, ratio=view.ratio)
    return [decoder, RandomHorizontalFlip(view.hflip)] if view.hflip else [decoder]


def _refuse_others(dataset: ImageDataset, view: View) -> None:
    """Refuse what FFCV cannot do."""
    instead = "use backend='auto'"
    if dataset.keeps_images:
        raise LoaderError(f"the ffcv backend keeps no decoded images; leave memory_budget out, or {instead}")
    if not isinstance(dataset, BetonDataset):
        raise LoaderError(f"the ffcv backend reads one .beton file, and {dataset.name} is none; {instead}")
    if view.interpolation != "bilinear":
        raise LoaderError(
            f"the ffcv backend has no {view.interpolation} filter, which the view asks for (an evaluation's as the "
            f"model does); take a view with interpolation='bilinear', or {instead}"
        )
    wrong = [name for name, given in _impossible(view).items() if given]
    if wrong:
        raise LoaderError(f"the ffcv backend cannot do what the view asks for ({', '.join(wrong)}); {instead}")


def _impossible(view: View) -> dict[str, bool]:
    if isinstance(view, TrainView):
        return {"vflip": view.vflip > 0, "hflip=alternating": view.hflip == "alternating"}
    return {
        "crop_mode": view.crop_mode != "center",
        "anchor": view.anchor != "center",
        "hflip": view.hflip,
    }
