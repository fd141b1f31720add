"""The native backend: C++ threads that decode, crop, resize and normalise without Python."""

from concurrent.futures import CancelledError
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from fasttrain.kernels.loading import (
    DONE,
    FAILED,
    JPEG,
    JPEG_FILE,
    NOT_HANDLED,
    OTHER,
    RAW,
    BatchPool,
    Geometry,
    Kept,
    PixelFormat,
    PixelType,
)
from fasttrain.kernels.loading import Filling as NativeHandle
from fasttrain.loading.backend import Normalisation
from fasttrain.loading.dataset import ImageDataset
from fasttrain.loading.left_over import LeftOver, LeftOverFilling
from fasttrain.loading.plan import BatchPlan

_DTYPES: dict[torch.dtype, PixelType] = {
    torch.uint8: "uint8",
    torch.float32: "float32",
    torch.float16: "float16",
    torch.bfloat16: "bfloat16",
}


class NativeBackend:
    """Threads of `fasttrain.kernels.loading`; samples that those do not decode go the portable way.

    Pixels agree with the portable backend within 1 of 255 levels almost everywhere: the resize rounds once instead of
    twice (for figures see `Loader`). Damage in the middle of a JPEG is an error here, where Pillow fills the hole with
    grey; rows below the crop box are not looked at. Results do not depend on the number of threads.

    A JPEG with a random-access index is decoded only where its views look, and damage elsewhere does not show. Images
    that are kept in memory are decoded as wholes, without it.

    Args:
        fast: see `Loader`.
        index: use the random-access index of JPEGs that have one.
        nice: how much lower than the process's the threads' priority is.

    Attributes:
        handed_over: samples that went the portable way so far (PNG files, turned photos, CMYK, …).
    """

    normalises = True
    augments = True
    on_device = False

    def __init__(
        self, dataset: ImageDataset, threads: int, fast: bool = False, index: bool = True, nice: int = 0
    ) -> None:
        self._dataset, self._fast = dataset, fast and not dataset.keeps_images
        self.uses_index = index and not dataset.keeps_images
        self._pool = BatchPool(threads, nice)
        self._left = LeftOver(dataset, threads, nice)
        self._odd: set[int] = set()  # rows that are known to go there

    @property
    def handed_over(self) -> int:
        return self._left.samples

    def submit(
        self, plan: BatchPlan, wanted: np.ndarray, out: Tensor, normalisation: Normalisation | None = None
    ) -> "NativeFilling":
        rows = np.where(wanted, plan.samples, plan.samples[np.argmax(wanted)])  # a stand-in, whose pixels nobody makes
        filling = NativeFilling(self, plan, LeftOverFilling(self._left, plan, out, normalisation, augmented=True))
        if wanted.any():
            sources = self._dataset.stored(rows)
            if not self.uses_index:
                sources = replace(sources, index=None)
            sources.stored[~wanted | (self._is_odd(rows) & (sources.stored != RAW))] = OTHER
            filling.left.add(wanted & (sources.stored == OTHER))
            places = None if plan.frame is None else plan.frame.places
            geometry = Geometry(
                plan.boxes, plan.resized, plan.offsets, plan.hflip, plan.vflip, plan.interpolation, places
            )
            pixels = _format(out, normalisation)
            kept = self._dataset.claim(rows, np.isin(sources.stored, (JPEG, JPEG_FILE)))
            native = self._pool.submit(sources, geometry, _as_array(out), pixels, self._fast, kept, plan.program)
            filling.start(native, wanted & (sources.stored != OTHER), kept)
        return filling

    def _is_odd(self, rows: np.ndarray) -> np.ndarray:
        if not self._odd:
            return np.zeros(len(rows), bool)
        return np.fromiter((row in self._odd for row in rows.tolist()), bool, len(rows))

    def note_odd(self, rows: np.ndarray) -> None:
        """Remember `rows` that the native threads could not decode."""
        self._odd.update(rows.tolist())

    def settle(self, rows: np.ndarray, done: np.ndarray) -> None:
        """Tell the data set which of the claimed `rows` lie where they should."""
        self._dataset.settle(rows, done)

    def image_error(self, row: int, reason: str) -> Exception:
        return self._dataset.image_error(row, reason)

    def close(self, wait: bool = True) -> None:
        self._pool.close()  # which never takes longer than the samples in work
        self._left.close(wait)


class NativeFilling:
    """A batch in the hands of both kinds of threads.

    Attributes:
        left: the portable part.
    """

    def __init__(self, backend: NativeBackend, plan: BatchPlan, left: LeftOverFilling) -> None:
        self.left = left
        self._backend, self._plan = backend, plan
        self._native: NativeHandle | None = None
        self._wanted = np.zeros(len(plan.samples), bool)  # of the native threads
        self._claimed = np.zeros(len(plan.samples), bool)  # that are left in the data set's memory, too

    def start(self, native: NativeHandle, samples: np.ndarray, kept: Kept | None) -> None:
        """`samples` ((B,) bool) are in the native threads' hands."""
        self._native, self._wanted = native, samples
        if kept is not None:
            self._claimed = kept.offsets >= 0

    def result(self) -> dict[int, Exception]:
        return self._native_result() | self.left.result()

    def _native_result(self) -> dict[int, Exception]:
        if self._native is None:
            return {}
        self._native.wait()
        outcomes, reasons = self._native.outcomes()
        self._settle(outcomes == DONE)
        left = self._wanted & (outcomes == NOT_HANDLED)
        self._backend.note_odd(self._plan.samples[left])
        self.left.add(left)
        failures: dict[int, Exception] = {
            position: self._backend.image_error(int(self._plan.samples[position]), reasons[position])
            for position in np.flatnonzero(self._wanted & (outcomes == FAILED)).tolist()
        }
        dropped = self._wanted & ~np.isin(outcomes, (DONE, NOT_HANDLED, FAILED))
        return failures | {position: CancelledError() for position in np.flatnonzero(dropped).tolist()}

    def _settle(self, done: np.ndarray) -> None:
        if self._claimed.any():
            self._backend.settle(self._plan.samples[self._claimed], done[self._claimed])
            self._claimed[:] = False

    def cancel(self) -> None:
        if self._native is not None:
            self._native.cancel()
            self._settle(self._native.outcomes()[0] == DONE)
        self.left.cancel()


def _as_array(out: Tensor) -> np.ndarray:
    """The memory of `out`; NumPy has no bfloat16."""
    return out.view(torch.int16).numpy() if out.dtype == torch.bfloat16 else out.numpy()


def _format(out: Tensor, normalisation: Normalisation | None) -> PixelFormat:
    dtype = _DTYPES[out.dtype]
    return PixelFormat(dtype) if normalisation is None else PixelFormat(dtype, normalisation.scale, normalisation.shift)
