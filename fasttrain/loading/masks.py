"""Masks of a loader's batches: moved by nearest neighbours as the plan moves the images, the same on every backend.

A pixel of a mask shows the pixel of the stored mask that its centre falls into (pixels' centres being at .5, as
Pillow's nearest has it): through crop, resize, window and flips in one look, then through the augmentation's geometry,
then through the shift. What lies beyond an image is `IGNORE`.

Masks are made on the CPU, by threads of their own, whichever backend makes the images, and cross to the device with
the labels.
"""

from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from fasttrain.base.errors import LoaderError
from fasttrain.beton_build.mask_info import IGNORE
from fasttrain.kernels.augment_masks import augment_masks, kept_together
from fasttrain.loading.backend import Circumstances
from fasttrain.loading.dataset import ImageDataset, readable_sizes
from fasttrain.loading.plan import BatchPlan, Shift
from fasttrain.loading.plan_segmentation import framed, source_places
from fasttrain.loading.segmentation_views import SegmentationView, WholeView
from fasttrain.loading.views import TrainView, View

Masks = bool | Literal["extent"]


class MaskMaker:
    """Persistent threads that make the masks of batches.

    Args:
        view: of all batches; only its size may be another in a plan.
        extents: the masks tell where the images are, by 0, and no mask of the data set is read.

    Raises:
        LoaderError: the data set has no masks.
    """

    def __init__(self, dataset: ImageDataset, threads: int, view: View, extents: bool = False) -> None:
        if dataset.masks is None and not extents:
            raise LoaderError(f"{dataset.name} holds no masks, which masks=True asks for; build a .beton with --masks")
        self._dataset, self._extents = dataset, extents
        self._erases = isinstance(view, TrainView) and view.augment.erased_masks == "ignore"
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="fasttrain-mask")

    def submit(self, plan: BatchPlan, wanted: np.ndarray) -> "MaskFilling":
        """Start making the masks of the `wanted` ((B,) bool) samples; those of the others are `IGNORE` all over."""
        masks = np.full((len(plan.rows), plan.height, plan.width), IGNORE, np.uint8)
        samples = np.flatnonzero(wanted).tolist()
        futures = {sample: self._pool.submit(self._make, plan, sample, masks) for sample in samples}
        return MaskFilling(torch.from_numpy(masks), futures)

    def _make(self, plan: BatchPlan, sample: int, out: np.ndarray) -> None:
        """All views of a sample."""
        mask = self._mask(int(plan.rows[sample]))
        for entry in range(sample, len(plan.rows), len(plan.samples)):
            render_mask(mask, plan, entry, out[entry])
            if plan.program is not None:
                own = plan.program[entry : entry + 1]
                own = replace(own, style=replace(own.style, mask_fill=IGNORE))
                augment_masks(out[entry : entry + 1], own, erases=self._erases)
            if plan.shift is not None:
                out[entry] = shifted(out[entry], plan.shift, entry)

    def _mask(self, row: int) -> np.ndarray:
        if not self._extents:
            return self._dataset.mask(row)
        [[width, height]] = self._dataset.sizes(np.array([row])).tolist()
        return np.broadcast_to(np.uint8(0), (height, width))

    def close(self, wait: bool = True) -> None:
        self._pool.shutdown(wait=wait, cancel_futures=True)


class MaskFilling:
    """The masks of a batch on their way.

    Attributes:
        masks: (E, H, W) uint8, to be looked at after `result`.
    """

    def __init__(self, masks: Tensor, futures: "dict[int, Future[None]]") -> None:
        self.masks, self._futures = masks, futures

    def result(self) -> dict[int, Exception]:
        """Wait; what went wrong, by sample, as `fasttrain.loading.backend.Filling` says it."""
        failures: dict[int, Exception] = {}
        for sample, future in self._futures.items():
            try:
                future.result()
            except (CancelledError, Exception) as error:
                failures[sample] = error
        return failures

    def cancel(self) -> None:
        """Drop what has not begun."""
        for future in self._futures.values():
            future.cancel()


def render_mask(mask: np.ndarray, plan: BatchPlan, entry: int, out: np.ndarray) -> None:
    """Carry crop, resize, window and flips of one plan entry out: (H, W) uint8 in, into `out` (height, width) uint8."""
    left, top, width, height = plan.places_of(entry)
    box_left, box_top, box_width, box_height = plan.boxes[entry].tolist()
    wide, tall = plan.resized[entry].tolist()
    x, y = plan.offsets[entry].tolist()
    columns = source_places(box_left, box_width, wide, np.arange(x, x + width))
    rows = source_places(box_top, box_height, tall, np.arange(y, y + height))
    columns = columns[::-1] if plan.hflip[entry] else columns
    rows = rows[::-1] if plan.vflip[entry] else rows
    out[top : top + height, left : left + width] = mask.take(rows, 0).take(columns, 1)


def shifted(mask: np.ndarray, shift: Shift, entry: int) -> np.ndarray:
    """A mask (H, W), moved as the device stage moves its image."""
    result = mask
    for axis, start in enumerate(shift.corners[entry][::-1].tolist()):
        places = start + np.arange(mask.shape[axis])
        last = mask.shape[axis] - 1
        if shift.padding == "reflect":
            result = result.take(last - np.abs(last - np.abs(places)), axis)
            continue
        result = result.take(places.clip(0, last), axis)
        beyond = (places < 0) | (places > last)
        result[(beyond, slice(None)) if axis == 0 else (slice(None), beyond)] = IGNORE
    return result


def together(plan: BatchPlan) -> BatchPlan:
    """`plan` as it serves images with masks: no operation of it parts the two."""
    return plan if plan.program is None else replace(plan, program=kept_together(plan.program))


def blank_masks(masks: Tensor, entries: np.ndarray) -> Tensor:
    """`masks` (E, H, W), those of `entries` ((E,) bool) `IGNORE` all over."""
    masks[torch.from_numpy(entries)] = IGNORE
    return masks


def mask_maker(made_for: Circumstances, backend: str, masks: Masks) -> MaskMaker | None:
    """What makes the masks of a loader, as its argument says; None for none.

    Raises:
        LoaderError: the data set has no masks, or the backend does not follow our plans.
    """
    if masks is False:
        return None
    if masks not in (True, "extent"):
        raise LoaderError(f"masks is True, False or 'extent', not {masks!r}")
    if backend == "ffcv":
        raise LoaderError(
            "the ffcv backend draws crops of its own, which masks cannot follow; use backend='auto', or FFCV itself: "
            "it reads the masks as a bytes field"
        )
    extents, view = masks == "extent", made_for.view
    if extents and isinstance(view, SegmentationView) and view.looks_at_masks:
        raise LoaderError("crops are chosen by the pixels of masks, which are not read here; use cat_max_ratio=1")
    return MaskMaker(made_for.dataset, made_for.threads, view, extents)


def fitted_view(view: View, dataset: ImageDataset, rows: np.ndarray) -> View:
    """A view of whole images with a frame that all of `rows` fit; any other as it is."""
    if not isinstance(view, WholeView) or view.frame is not None:
        return view
    return framed(view, readable_sizes(dataset, rows)[0])


def original_masks(dataset: ImageDataset, rows: np.ndarray) -> list[np.ndarray]:
    """The stored masks (H, W) uint8 of `rows`, at their images' own sizes.

    Raises:
        LoaderError: there are none.
        ImageError: one is damaged.
    """
    return [dataset.mask(int(row)) for row in rows]
