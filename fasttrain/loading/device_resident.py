"""Data sets that lie in a device's memory as pixels: batches without a disk, a decoder or a copy."""

from collections.abc import Iterable
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from fasttrain.base import process
from fasttrain.base.errors import LoaderError
from fasttrain.base.sizes import format_size
from fasttrain.kernels import device_stage
from fasttrain.kernels.pixels import Crops, Target
from fasttrain.loading.backend import Normalisation
from fasttrain.loading.plan import Jitter


class ResidentImages:
    """Images of one size on a device, from which a batch is one kernel: crop, flip, jitter, normalise, cast.

    Attributes:
        pixels: (N, H, W, 3) uint8.

    Args:
        pixels: the same, contiguous; `load_resident` makes it.
        normalisation: of a view (`fasttrain.loading.device_stage.normalisation_of`).
        dtype: of the batches.
        threads: that a CPU may use for a batch.
    """

    def __init__(self, pixels: Tensor, normalisation: Normalisation, dtype: torch.dtype, threads: int = 1) -> None:
        if not dtype.is_floating_point:
            raise LoaderError(f"images are normalised, so their dtype must be a floating-point one, not {dtype}")
        self.pixels = pixels
        self._target = Target(normalisation.scale, normalisation.shift, dtype)
        self._threads = threads

    def __len__(self) -> int:
        return len(self.pixels)

    def batch(
        self,
        rows: np.ndarray,
        *,
        corners: np.ndarray | None = None,
        size: tuple[int, int] | None = None,
        hflip: np.ndarray | None = None,
        vflip: np.ndarray | None = None,
        jitter: Jitter | None = None,
        padding: Literal["black", "reflect"] = "black",
    ) -> Tensor:
        """A batch, made on the current stream; the only copy to the device is that of these few numbers.

        Args:
            rows: (B,) int64 rows, in any order and as often as wanted.
            corners: (B, 2) int64 left, top of each window, beyond the image where padding is wanted; (0, 0) by default.
            size: height and width of the windows; those of the images by default.
            hflip, vflip: (B,) bool; none by default.
            jitter: of B samples.
            padding: what windows show beyond the image; see `fasttrain.kernels.pixels.Crops`.

        Returns:
            (B, 3, height, width) in channels-last format.

        Raises:
            LoaderError: a row is none of the images, or the arrays do not fit together.
        """
        height, width = self.pixels.shape[1:3] if size is None else size
        count = len(rows)
        crops = Crops(
            rows=rows,
            corners=np.zeros((count, 2), np.int64) if corners is None else corners,
            height=height,
            width=width,
            hflip=np.zeros(count, bool) if hflip is None else hflip,
            vflip=np.zeros(count, bool) if vflip is None else vflip,
            padding=padding,
        )
        try:
            return device_stage.gather(self.pixels, crops, self._target, jitter, threads=self._threads)
        except ValueError as error:
            raise LoaderError(f"no batch can be made of the images in memory: {error}") from error


def load_resident(
    chunks: Iterable[np.ndarray | Tensor], count: int, height: int, width: int, device: torch.device
) -> Tensor:
    """Bring a data set into a device's memory, in one allocation.

    Args:
        chunks: (b, height, width, 3) uint8 each, `count` images together.

    Returns:
        (count, height, width, 3) uint8 on `device`.

    Raises:
        LoaderError: there is too little memory (nothing was allocated then), or the chunks are not what was announced.
    """
    check_room(3 * count * height * width, f"{count:,} images of {width} x {height} pixels", device)
    pixels = torch.empty((count, height, width, 3), dtype=torch.uint8, device=device)
    done = 0
    for chunk in chunks:
        images = chunk if isinstance(chunk, Tensor) else torch.from_numpy(np.require(chunk, requirements=["C", "W"]))
        if images.dtype != torch.uint8 or images.shape[1:] != pixels.shape[1:]:
            raise LoaderError(
                f"images kept in memory must be uint8 of {width} x {height} pixels like the others, not "
                f"{tuple(images.shape[1:])} of {images.dtype}; resize them, or load them batch by batch"
            )
        if done + len(images) > count:
            raise LoaderError(f"there are more images than the {count} that were to be kept in memory")
        pixels[done : done + len(images)] = images.to(device)
        done += len(images)
    if done != count:
        raise LoaderError(f"only {done} of the {count} images that were to be kept in memory came")
    return pixels


def check_room(need: int, what: str, device: torch.device) -> None:
    """Compare the memory that images need with what a device has left.

    Raises:
        LoaderError: it is too little.
    """
    free = _free_memory(device)
    if free is not None and need > free:
        raise LoaderError(
            f"{what} take {format_size(need)}, but {device} has {format_size(free)} free; keep fewer or smaller images "
            "there, or load them batch by batch"
        )


def _free_memory(device: torch.device) -> int | None:
    """Bytes that can be allocated, as far as the system tells."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return free + unused
    return process.available_memory()
