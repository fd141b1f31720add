"""From what a backend has filled to the batch that a loader hands out."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from fasttrain.base.errors import ImageError
from fasttrain.loading.backend import Filling, image_error_of
from fasttrain.loading.batch import Batch, batch_of
from fasttrain.loading.dataset import ImageDataset
from fasttrain.loading.device_stage import DeviceStage
from fasttrain.loading.masks import MaskFilling, blank_masks
from fasttrain.loading.planner import PlannedBatch


@dataclass
class InFlight:
    """A batch that is being filled."""

    planned: PlannedBatch
    pixels: torch.Tensor
    filling: Filling
    masks: MaskFilling | None = None


class Delivery:
    """Waits for batches, deals with their broken images, and sends them through the device stage.

    Args:
        on_error: ``raise`` or ``skip`` (see `fasttrain.loading.loader.Loader`).

    Attributes:
        skipped: (string id, error) of each sample left out so far.
    """

    def __init__(self, dataset: ImageDataset, stage: DeviceStage, on_error: Literal["raise", "skip"] | str) -> None:
        self.skipped: list[tuple[str, str]] = []
        self._dataset, self._stage, self._on_error = dataset, stage, on_error
        self._skipped_rows: set[int] = set()

    def deliver(self, filled: InFlight) -> Batch:
        """The batch, on the device.

        Raises:
            ImageError: an image is broken, and that is to be an error.
            LoaderError: the loader was closed, or has failed.
        """
        plan, valid = filled.planned.plan, filled.planned.wanted
        errors = dict(filled.planned.unreadable)
        failures = filled.filling.result() | ({} if filled.masks is None else filled.masks.result())
        for position, error in sorted(failures.items()):
            errors[position] = image_error_of(error, self._dataset, int(plan.samples[position]))
            if self._on_error == "raise":
                raise errors[position]
        for position, reason in errors.items():
            valid[position] = False
            self._note_skipped(int(plan.samples[position]), reason)
        self._stage.blank(filled.pixels, np.tile(~valid, plan.views))
        labels = np.where(plan.padded, -1, self._dataset.labels[plan.samples])
        masks = [] if filled.masks is None else [blank_masks(filled.masks.masks, np.tile(~valid, plan.views))]
        images, *rest = self._stage.run(
            filled.pixels,
            plan.jitter,
            torch.from_numpy(labels.astype(np.int64)),
            torch.from_numpy(plan.samples),
            torch.from_numpy(valid),
            *masks,
            shift=plan.shift,
        )
        return batch_of(images, rest, plan.views)

    def _note_skipped(self, row: int, error: ImageError) -> None:
        if row not in self._skipped_rows:
            self._skipped_rows.add(row)
            self.skipped.append((error.sample_id, error.reason))
