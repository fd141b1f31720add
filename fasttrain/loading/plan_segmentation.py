"""The geometry of segmentation views, decided for a whole batch: scaled sizes, crops, their places in frames."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fasttrain.beton_build.mask_info import IGNORE
from fasttrain.loading.randomness import Operation, uniforms
from fasttrain.loading.segmentation_views import SegmentationView, WholeView

LOOK = 128  # pixels a side that a crop's classes are counted on, at the most

LookAt = Callable[[int], np.ndarray | None]  # the mask of a row, (H, W) uint8; None for one that cannot be read


@dataclass(frozen=True)
class Frame:
    """What the views of a batch lie in, where they do not fill it or it is no square.

    Attributes:
        height, width: of every entry.
        places: (E, 4) int64 left, top, width, height of what is shown; the window of the resized box is as large.
        fill: colour of the rest.
    """

    height: int
    width: int
    places: np.ndarray
    fill: tuple[int, int, int]

    @property
    def filled(self) -> np.ndarray:
        """(E,) bool: entries of which nothing is left."""
        return (self.places[:, 2] == self.width) & (self.places[:, 3] == self.height)


@dataclass(frozen=True)
class Placement:
    """Boxes, sizes and windows of a batch's views, as in `fasttrain.loading.plan.BatchPlan`; None for a full square."""

    boxes: np.ndarray
    resized: np.ndarray
    offsets: np.ndarray
    frame: Frame | None


def fill_of(mean: tuple[float, ...], fill: tuple[int, ...] | None = None) -> tuple[int, int, int]:
    """The colour that stands for nothing: `fill`, or the mean of a view."""
    red, green, blue = (min(255, round(255 * level)) for level in mean) if fill is None else fill
    return red, green, blue


def plan_crops(
    view: SegmentationView,
    rows: np.ndarray,
    keys: np.ndarray,
    sizes: np.ndarray,
    seed: int,
    epoch: int,
    look: LookAt | None = None,
    focus: np.ndarray | None = None,
) -> Placement:
    """The crops of a batch.

    Args:
        rows, keys, sizes: as for `fasttrain.loading.plan.plan_batch`.
        look: shows the mask of a row; None takes the first crop that is drawn.
        focus: (B,) int64 class for which each sample was drawn, -1 for none.
    """
    draw = uniforms(seed, epoch, keys, Operation.SCALE)
    factor = view.scale[0] + draw[0] * (view.scale[1] - view.scale[0])
    low, high = math.log(view.ratio[0]), math.log(view.ratio[1])
    stretch = np.exp(0.5 * (low + draw[1] * (high - low)))
    own = factor * (view.short / sizes.min(1) if view.short else 1.0)
    resized = np.maximum(np.rint(sizes * own[:, None] * np.stack([stretch, 1 / stretch], 1)), 1).astype(np.int64)
    window = np.minimum(resized, view.size)
    room = resized - window + 1
    boxes = np.concatenate([np.zeros_like(sizes), sizes], 1)
    offsets = np.zeros_like(resized)
    open_ = np.arange(len(rows))
    for attempt in range(view.tries):
        corner = uniforms(seed, epoch, keys[open_], Operation.CROP + attempt)[2:].T
        offsets[open_] = np.floor(corner * room[open_]).astype(np.int64)
        if look is None or not view.looks_at_masks:
            break
        wanted = [
            row >= 0 and not _is_good(view, look(row), offsets[at], window[at], resized[at], _class_of(focus, at))
            for at, row in zip(open_.tolist(), rows[open_].tolist(), strict=True)
        ]
        open_ = open_[np.array(wanted, bool)]
        if not len(open_):
            break
    places = np.concatenate([np.zeros_like(window), window], 1)
    frame = Frame(view.size, view.size, places, fill_of(view.mean, view.augment.fill))
    return Placement(boxes, resized, offsets, None if frame.filled.all() else frame)


def _class_of(focus: np.ndarray | None, at: int) -> int:
    return -1 if focus is None else int(focus[at])


def _is_good(
    view: SegmentationView,
    mask: np.ndarray | None,
    offset: np.ndarray,
    window: np.ndarray,
    resized: np.ndarray,
    wanted: int,
) -> bool:
    """Whether a crop has enough of several classes, and of the `wanted` one; by a grid of its pixels."""
    if mask is None:
        return True
    steps = -(-window // LOOK)
    columns, rows = (
        source_places(
            0,
            mask.shape[1 - axis],
            int(resized[axis]),
            np.arange(offset[axis], offset[axis] + window[axis], steps[axis]),
        )
        for axis in (0, 1)
    )
    counts = np.bincount(mask[rows][:, columns].ravel(), minlength=256)
    counts[IGNORE] = 0
    if wanted >= 0 and counts[wanted] * steps.prod() < view.min_focus:
        return False
    return view.cat_max_ratio >= 1 or bool(0 < counts.max() <= view.cat_max_ratio * counts.sum())


def source_places(start: int, length: int, resized: int, positions: np.ndarray) -> np.ndarray:
    """Source pixels that the pixels at `positions` of a box, `length` long from `start` on and resized, show: the
    centre of each falls into them (Pillow's nearest)."""
    return start + (2 * positions + 1) * length // (2 * resized)


def scaled_sizes(view: WholeView, sizes: np.ndarray) -> np.ndarray:
    """(n, 2) int64 width and height at which a view shows images of `sizes`."""
    if view.crop_mode == "squash":
        return np.full_like(sizes, max(1, round(view.size * view.scale)))
    factor = view.scale * (view.size / sizes.min(1) if view.size else np.ones(len(sizes)))
    return np.maximum(np.rint(sizes * factor[:, None]), 1).astype(np.int64)


def framed(view: WholeView, sizes: np.ndarray) -> WholeView:
    """`view` with a frame that all images of `sizes` ((n, 2) width, height) fit; as it is where it has one."""
    if view.frame is not None:
        return view
    width, height = scaled_sizes(view, sizes).max(0).tolist()
    sides = tuple(-(-side // view.multiple) * view.multiple for side in (width, height))
    return view.model_copy(update={"frame": sides})


def plan_whole(view: WholeView, sizes: np.ndarray) -> Placement:
    """The whole images of a batch, in frames.

    Raises:
        ValueError: an image is larger than the frame.
    """
    resized = scaled_sizes(view, sizes)
    frame = framed(view, sizes).frame
    assert frame is not None
    room = np.array(frame) - resized
    if len(room) and room.min() < 0:
        width, height = resized[np.argmin(room.min(1))].tolist()
        raise ValueError(f"an image of {width}x{height} pixels does not fit the frame of {frame[0]}x{frame[1]}")
    share = np.array([0.5, 0.5] if view.anchor == "center" else ["right" in view.anchor, "bottom" in view.anchor])
    corners = np.floor(room * share).astype(np.int64)
    boxes = np.concatenate([np.zeros_like(sizes), sizes], 1)
    placed = Frame(frame[1], frame[0], np.concatenate([corners, resized], 1), fill_of(view.mean))
    square = frame[0] == frame[1] == view.size and bool(placed.filled.all())
    return Placement(boxes, resized, np.zeros_like(resized), None if square else placed)
