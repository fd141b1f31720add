"""The backend that decodes nothing: all images lie in the GPU's memory, and a batch is one kernel."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from fasttrain.base.errors import ImageError, LoaderError
from fasttrain.kernels import augment, device_stage
from fasttrain.kernels.loading import Geometry
from fasttrain.kernels.pixels import FlatImages
from fasttrain.loading.backend import Circumstances, Make, Normalisation
from fasttrain.loading.dataset import ImageDataset, readable_sizes
from fasttrain.loading.device_resident import check_room
from fasttrain.loading.plan import BatchPlan, plan_batch
from fasttrain.loading.plan_segmentation import Frame
from fasttrain.loading.resident import ResidentDataset
from fasttrain.loading.views import eval_view

_CHUNK = 256 << 20  # bytes of pixels that are decoded before they go to the device
_POINT = eval_view(1, crop_pct=1.0, crop_mode="squash")  # the cheapest view, for images that are decoded as a whole


def check_resident(resident: str, device: torch.device, backend: str, memory_budget: int | str | None) -> None:
    """Refuse settings of a `Loader` that do not go with images in the GPU's memory.

    Raises:
        LoaderError: they do not.
    """
    if resident != "gpu":
        raise LoaderError(f"resident must be 'gpu' or None, not {resident!r}")
    if device.type != "cuda":
        raise LoaderError("resident='gpu' needs device='cuda'; to keep decoded images on the CPU, use memory_budget")
    if backend not in ("auto", "native", "portable"):
        raise LoaderError(f"resident='gpu' decodes each image once, on the CPU; leave backend={backend!r} out")
    if memory_budget is not None:
        raise LoaderError("resident='gpu' needs no memory on the CPU; leave memory_budget out")


class ResidentBackend:
    """Crops, resizes and flips on a device, from images that were all decoded once when this was made.

    Args:
        made_for: as for other backends.
        rows: (n,) int64 of the data set that batches will have.
        device: where the images go.
        make: makes the backend that decodes them.

    Raises:
        LoaderError: there is too little memory.
    """

    normalises = False
    augments = True
    on_device = True
    uses_index = False

    def __init__(self, made_for: Circumstances, rows: np.ndarray, device: torch.device, make: Make) -> None:
        self._stream, dataset = made_for.stream, made_for.dataset
        sizes, unreadable = readable_sizes(dataset, rows)
        self._errors: dict[int, Exception] = {int(rows[at]): error for at, error in unreadable.items()}
        self._sizes = np.ones((dataset.num_samples, 2), np.int64)
        self._sizes[rows] = sizes
        lengths = 3 * sizes.prod(1)
        self._offsets = np.zeros(dataset.num_samples, np.int64)
        self._offsets[rows] = np.cumsum(lengths) - lengths
        check_room(int(lengths.sum()), f"the {len(rows):,} images of {dataset.name}", device)
        readable = np.delete(rows, list(unreadable))
        with torch.cuda.stream(self._stream):  # that of the batches: on another one the last copy might come too late
            self._pixels = torch.empty(int(lengths.sum()), dtype=torch.uint8, device=device)
            for chunk in _chunks(readable, 3 * self._sizes[readable].prod(1)):
                self._bring(dataset, chunk, made_for, make)

    def _bring(self, dataset: ImageDataset, rows: np.ndarray, made_for: Circumstances, make: Make) -> None:
        """Decode the images of `rows`, which are neighbours on the device, and copy them there."""
        decoded, raw = ResidentDataset(dataset, rows, raw_too=True), dataset.are_raw(rows)
        backend = make(Circumstances(decoded, made_for.threads, _POINT, None, nice=made_for.nice))
        try:
            plan = plan_batch(_POINT, rows, dataset.keys[rows], self._sizes[rows])
            points = torch.empty((len(rows), 1, 1, 3), dtype=torch.uint8)
            failures = backend.submit(plan, ~raw, points).result()
        finally:
            backend.close()
        for position, error in failures.items():
            if not isinstance(error, ImageError):
                raise error
            self._errors[int(rows[position])] = error
        for row in rows[raw].tolist():  # which are as they should be, and only have to be copied
            try:
                decoded.decode(row)
            except ImageError as error:
                self._errors[row] = error
        start = int(self._offsets[rows[0]])
        pixels = torch.from_numpy(decoded.pixels)
        self._pixels[start : start + len(pixels)] = pixels.to(self._pixels.device)

    def submit(
        self, plan: BatchPlan, wanted: np.ndarray, out: Tensor, normalisation: Normalisation | None = None
    ) -> "ResidentFilling":
        assert normalisation is None
        broken = {
            position: self._errors[row]
            for position, row in enumerate(plan.samples.tolist())
            if wanted[position] and row in self._errors
        }
        chosen = wanted.copy()
        chosen[list(broken)] = False
        entries = np.flatnonzero(np.tile(chosen, plan.views))
        if len(entries):
            with torch.cuda.stream(self._stream):  # which is nothing where there is none
                self._fill(plan, entries, out)
        return ResidentFilling(broken)

    def _fill(self, plan: BatchPlan, entries: np.ndarray, out: Tensor) -> None:
        rows = plan.rows[entries]
        images = FlatImages(self._pixels, self._offsets[rows], self._sizes[rows])
        geometry = Geometry(
            boxes=plan.boxes[entries],
            resized=plan.resized[entries],
            windows=plan.offsets[entries],
            hflip=plan.hflip[entries],
            vflip=plan.vflip[entries],
            filter=plan.interpolation,
        )
        if plan.frame is None:
            pixels = device_stage.resample(images, geometry, plan.size)
        else:
            pixels = in_frames(images, geometry, plan.frame, entries)
        if plan.program is not None:
            pixels = augment.augment(pixels, plan.program[entries])
        if len(entries) == len(out):
            out.copy_(pixels)
        else:
            out[torch.from_numpy(entries).to(out.device)] = pixels

    def close(self, wait: bool = True) -> None:
        self._pixels = torch.empty(0, dtype=torch.uint8)


def in_frames(images: FlatImages, geometry: Geometry, frame: Frame, entries: np.ndarray) -> Tensor:
    """(n, height, width, 3) uint8: the views of `entries` of a plan in their places, the fill colour around them.

    The kernel makes squares. A square's window is laid so that the place shows what it should, and what it makes
    beyond the place is painted over.
    """
    side, places, device = max(frame.height, frame.width), frame.places[entries], images.buffer.device
    corner, extent = places[:, :2], places[:, 2:]
    flips = np.stack([geometry.hflip, geometry.vflip], 1)
    # A mirrored window is read from its far end, which then has to be that of the place.
    windows = geometry.windows + np.where(flips, corner + extent - side, -corner)
    pixels = device_stage.resample(images, replace(geometry, windows=windows), side, beyond=True)
    pixels = pixels[:, : frame.height, : frame.width]
    if frame.filled[entries].all():
        return pixels.contiguous()
    first, last = (torch.from_numpy(ends).to(device) for ends in (corner, corner + extent))
    x, y = torch.arange(frame.width, device=device), torch.arange(frame.height, device=device)
    across = (x >= first[:, :1]) & (x < last[:, :1])
    down = (y >= first[:, 1:]) & (y < last[:, 1:])
    shown = (down[:, :, None] & across[:, None, :])[..., None]
    return torch.where(shown, pixels, torch.tensor(frame.fill, dtype=torch.uint8, device=device))


class ResidentFilling:
    """A batch that is on its way on the device's stream."""

    def __init__(self, broken: dict[int, Exception]) -> None:
        self._broken = broken

    def result(self) -> dict[int, Exception]:
        return self._broken

    def cancel(self) -> None:
        """What a stream was given cannot be taken back."""


def _chunks(rows: np.ndarray, sizes: np.ndarray) -> list[np.ndarray]:
    """Neighbouring `rows` of about `_CHUNK` bytes together."""
    if not len(rows):
        return []
    part = (np.cumsum(sizes) - sizes) // _CHUNK
    return np.split(rows, np.flatnonzero(np.diff(part)) + 1)
