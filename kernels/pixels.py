"""What goes into the kernels of the device stage, whichever of them does the work. Arrays in, tensors out."""

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor

FAST_TYPES = (torch.float32, torch.float16, torch.bfloat16)  # that the fast kernels store; torch does the others

# Weights of R, G and B in luma (ITU-R BT.601), as Pillow and torchvision use them.
LUMA = (0.2989, 0.587, 0.114)
# What leaves colours alone: factors of brightness, contrast and saturation, shift of the hue.
NEUTRAL = (1.0, 1.0, 1.0, 0.0)
CONTRAST = 1  # number of the operation that looks at the whole image

Triple = tuple[float, float, float]


class Jitter(Protocol):
    """Colour jitter of a batch: each sample's own factors, applied in its own order."""

    @property
    def factors(self) -> np.ndarray:
        """(B, 4) float32: factors of brightness, contrast and saturation, hue shift in turns."""

    @property
    def order(self) -> np.ndarray:
        """(B, 4) int64: the operations (0–3, as in `factors`) in the order they are applied."""


@dataclass(frozen=True)
class Target:
    """What pixels become: ``value * scale + shift`` of each channel, the value being 0 to 255, as `dtype`.

    Attributes:
        dtype: a floating-point one; others than float32, float16 and bfloat16 are left to plain torch.
    """

    scale: Triple
    shift: Triple
    dtype: torch.dtype

    def __post_init__(self) -> None:
        if not self.dtype.is_floating_point:
            raise ValueError(f"images are normalised, so their dtype must be a floating-point one, not {self.dtype}")


@dataclass(frozen=True)
class Crops:
    """Windows of images that all have the same size.

    Attributes:
        rows: (B,) int64 images.
        corners: (B, 2) int64 left, top of each window; what lies outside of the image is padding.
        height, width: of the windows.
        hflip, vflip: (B,) bool: mirror the window.
        padding: ``black``, or ``reflect``: the image mirrored at its border pixels, which are not repeated (windows
            then reach less than one image beyond it).
    """

    rows: np.ndarray
    corners: np.ndarray
    height: int
    width: int
    hflip: np.ndarray
    vflip: np.ndarray
    padding: Literal["black", "reflect"] = "black"

    def check(self, count: int, height: int, width: int) -> None:
        """Compare with a data set of `count` images of `height` x `width`.

        Raises:
            ValueError: a row is none of its images, a reflection would go too far, or shapes disagree.
        """
        wanted = (len(self.rows),)
        if self.corners.shape != (*wanted, 2) or self.hflip.shape != wanted or self.vflip.shape != wanted:
            raise ValueError("rows, corners and flips must be of as many samples")
        if min(self.height, self.width) < 1:
            raise ValueError(f"windows need at least one pixel, not {self.width} x {self.height}")
        if not len(self.rows):
            return
        if self.rows.min() < 0 or self.rows.max() >= count:
            raise ValueError(f"rows must be 0 to {count - 1}, not {self.rows.min()} to {self.rows.max()}")
        side = np.array([width, height])
        beyond = self.corners + np.array([self.width, self.height]) - side
        if self.padding == "reflect" and (np.maximum(-self.corners, beyond) >= side).any():
            raise ValueError(f"a window reaches a whole image beyond images of {width} x {height}; pad with black")
        if np.abs(self.corners).max() >= 1 << 24:  # far from what 32 bits hold
            raise ValueError("the corners of the windows are too far off")


@dataclass(frozen=True)
class FlatImages:
    """Images of various sizes in one buffer.

    Attributes:
        buffer: (n,) uint8 on any device.
        offsets: (B,) int64 of each image in the buffer.
        sizes: (B, 2) int64 width and height.
        planar: (3, H, W), as GPU decoders give them, instead of (H, W, 3).
    """

    buffer: Tensor
    offsets: np.ndarray
    sizes: np.ndarray
    planar: bool = False

    def check(self) -> None:
        """See that each image lies within the buffer.

        Raises:
            ValueError: one does not.
        """
        if self.buffer.dtype != torch.uint8 or self.buffer.dim() != 1 or not self.buffer.is_contiguous():
            raise ValueError("images come in a contiguous one-dimensional uint8 tensor")
        if self.offsets.ndim != 1 or self.sizes.shape != (len(self.offsets), 2):
            raise ValueError("offsets and sizes must be of as many images")
        if len(self.sizes) and (self.sizes.min() < 1 or self.sizes.max() >= 1 << 24):
            raise ValueError("images need at least one pixel a side, and less than 2^24")
        ends = self.offsets + 3 * self.sizes.prod(1)
        if len(ends) and (self.offsets.min() < 0 or ends.max() > len(self.buffer)):
            raise ValueError(f"an image lies outside of its buffer of {len(self.buffer)} bytes")


class Geometry(Protocol):
    """What is shown of each image; see `fasttrain.kernels.loading.Geometry`."""

    @property
    def boxes(self) -> np.ndarray: ...
    @property
    def resized(self) -> np.ndarray: ...
    @property
    def windows(self) -> np.ndarray: ...
    @property
    def hflip(self) -> np.ndarray: ...
    @property
    def vflip(self) -> np.ndarray: ...
    @property
    def filter(self) -> str: ...


def check_geometry(geometry: Geometry, sizes: np.ndarray, size: int, beyond: bool = False) -> None:
    """See that boxes lie within images of `sizes`, and windows of `size` within the resized boxes, or (`beyond`) near.

    Raises:
        ValueError: one does not, the shapes disagree, or there is no such filter.
    """
    count = len(sizes)
    if geometry.filter not in ("bilinear", "bicubic"):
        raise ValueError(f"the filter is bilinear or bicubic, not {geometry.filter}")
    shapes = [geometry.boxes.shape, geometry.resized.shape, geometry.windows.shape]
    flips = [geometry.hflip.shape, geometry.vflip.shape]
    if shapes != [(count, 4), (count, 2), (count, 2)] or flips != [(count,)] * 2:
        raise ValueError("boxes, resized, windows and flips must be of as many samples as there are images")
    if not count:
        return
    start, extent = geometry.boxes[:, :2], geometry.boxes[:, 2:]
    if (start < 0).any() or (extent < 1).any() or (start + extent > sizes).any():
        raise ValueError("a box lies outside of its image")
    windows, resized = geometry.windows, geometry.resized
    if beyond and size >= 1 and np.abs(windows).max() < 1 << 24 and resized.max() < 1 << 24:
        return
    if size < 1 or (windows < 0).any() or (windows + size > resized).any() or resized.max() >= 1 << 24:
        raise ValueError("a window lies outside of its resized box")


def active(jitter: Jitter) -> np.ndarray:
    """(B, 4) bool: which operations change anything, in the order they are applied."""
    changes = jitter.factors != np.array(NEUTRAL, np.float32)
    return np.take_along_axis(changes, jitter.order, 1)
