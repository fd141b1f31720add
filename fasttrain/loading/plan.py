"""What happens to each sample of a batch, decided for the whole batch in vectorised NumPy.

Every view is written in one form: resize ``boxes`` of the source to ``resized``, take the square window at ``offsets``,
mirror it, and where it has a ``shift``, move it.
"""

import math
from dataclasses import dataclass, replace

import numpy as np

from fasttrain.kernels.augment_program import Op, Program
from fasttrain.loading.augment.planning import plan_program
from fasttrain.loading.plan_segmentation import Frame, LookAt, Placement, plan_crops, plan_whole
from fasttrain.loading.randomness import Operation, random_bits, repeated_keys, uniforms
from fasttrain.loading.sampler import PADDING
from fasttrain.loading.segmentation_views import SegmentationView, WholeView
from fasttrain.loading.views import EvalView, Padding, TrainView, View

CROP_TRIES = 10


@dataclass(frozen=True)
class Jitter:
    """Colour jitter of a batch.

    Attributes:
        factors: (B, 4) float32: brightness, contrast and saturation factors, hue shift in turns.
        order: (B, 4) int64: the operations (0–3, as in `factors`) in the order they are applied.
    """

    factors: np.ndarray
    order: np.ndarray


@dataclass(frozen=True)
class Shift:
    """Views that are moved once they are made, by the device stage.

    Attributes:
        corners: (E, 2) int64 left, top of what is shown, in pixels of the view; beyond it lies the padding.
        padding: see `fasttrain.kernels.pixels.Crops`.
    """

    corners: np.ndarray
    padding: Padding


@dataclass(frozen=True)
class BatchPlan:
    """The plan of a batch of B samples with V views of each, equal bit for bit on all backends.

    It has E = V * B entries; entry ``v * B + b`` is view v of sample b.

    Attributes:
        rows: (E,) int64 rows of the data set, `PADDING` at a padded tail.
        size: output side in pixels.
        interpolation: ``bilinear`` or ``bicubic``, both antialiased.
        boxes: (E, 4) int64 left, top, width, height in source pixels; nothing outside of the box is looked at.
        resized: (E, 2) int64 width, height that the box is resized to.
        offsets: (E, 2) int64 left, top of the window of `size` in the resized box.
        hflip, vflip: (E,) bool.
        jitter: colour jitter for the device stage, None when the view has none.
        views: V.
        shift: for the device stage too, None when the view is not moved.
        frame: what the entries lie in, None for squares of `size` that they fill.
        program: what is done to the bytes of each entry once it is cropped and mirrored, None for nothing; colour
            jitter is a part of it then.
    """

    rows: np.ndarray
    size: int
    interpolation: str
    boxes: np.ndarray
    resized: np.ndarray
    offsets: np.ndarray
    hflip: np.ndarray
    vflip: np.ndarray
    jitter: Jitter | None
    views: int = 1
    shift: Shift | None = None
    program: Program | None = None
    frame: Frame | None = None

    @property
    def height(self) -> int:
        """Of every entry, in pixels."""
        return self.size if self.frame is None else self.frame.height

    @property
    def width(self) -> int:
        """Of every entry, in pixels."""
        return self.size if self.frame is None else self.frame.width

    def places_of(self, entry: int) -> tuple[int, int, int, int]:
        """Left, top, width, height of what is shown in one entry."""
        if self.frame is None:
            return 0, 0, self.size, self.size
        left, top, width, height = self.frame.places[entry].tolist()
        return left, top, width, height

    @property
    def samples(self) -> np.ndarray:
        """(B,) int64 rows of the samples, each once."""
        return self.rows[: len(self.rows) // self.views]

    @property
    def padded(self) -> np.ndarray:
        """(B,) bool: those that stand for no sample."""
        return self.samples == PADDING


def plan_batch(
    view: View,
    rows: np.ndarray,
    keys: np.ndarray,
    sizes: np.ndarray,
    seed: int = 0,
    epoch: int = 0,
    views: int = 1,
    *,
    look: LookAt | None = None,
    focus: np.ndarray | None = None,
) -> BatchPlan:
    """Plan a batch.

    Args:
        view: train or eval view.
        rows: (B,) int64, `PADDING` for padded entries.
        keys: (B,) uint64 randomness keys of the samples.
        sizes: (B, 2) int64 width and height of the source images (1 × 1 for padded entries).
        seed, epoch: of the randomness; eval views have none.
        views: of each sample; the first is that of a plan with a single one.
        look, focus: see `fasttrain.loading.plan_segmentation.plan_crops`.
    """
    if views > 1:
        number = np.repeat(np.arange(views), len(rows))
        own = repeated_keys(np.tile(keys, views), number, Operation.VIEW_KEY)
        tiled = np.tile(rows, views), np.tile(sizes, (views, 1))
        focus = None if focus is None else np.tile(focus, views)
        if isinstance(view, TrainView) and view.augment.same_crop:
            return _plan_variants(view, *tiled, np.tile(keys, views), own, seed, epoch, views, look, focus)
        return replace(plan_batch(view, tiled[0], own, tiled[1], seed, epoch, look=look, focus=focus), views=views)
    if isinstance(view, EvalView):
        return _plan_whole(view, rows, sizes) if isinstance(view, WholeView) else _plan_eval(view, rows, sizes)
    return _plan_train(view, rows, keys, sizes, seed, epoch, look, focus)


def _plan_variants(
    view: TrainView,
    rows: np.ndarray,
    sizes: np.ndarray,
    keys: np.ndarray,
    own: np.ndarray,
    seed: int,
    epoch: int,
    views: int,
    look: LookAt | None,
    focus: np.ndarray | None,
) -> BatchPlan:
    """Views of the same crop and flip (those of `keys`), augmented each for itself (by `own`), but for the first."""
    plan = replace(_plan_train(view, rows, keys, sizes, seed, epoch, look, focus), views=views, jitter=None)
    program = _plan_program(view, own, seed, epoch)
    if program is None:
        return plan
    operations = program.operations.copy()
    operations[: len(rows) // views] = Op.NOTHING
    return replace(plan, program=replace(program, operations=operations))


def _plan_train(
    view: TrainView,
    rows: np.ndarray,
    keys: np.ndarray,
    sizes: np.ndarray,
    seed: int,
    epoch: int,
    look: LookAt | None = None,
    focus: np.ndarray | None = None,
) -> BatchPlan:
    if isinstance(view, SegmentationView):
        placement = plan_crops(view, rows, keys, sizes, seed, epoch, look, focus)
    else:
        boxes = random_resized_crop(view, keys, sizes, seed, epoch)
        resized, offsets = np.full((len(rows), 2), view.size, np.int64), np.zeros((len(rows), 2), np.int64)
        placement = Placement(boxes, resized, offsets, None)
    return BatchPlan(
        rows=rows,
        size=view.size,
        interpolation=view.interpolation,
        boxes=placement.boxes,
        resized=placement.resized,
        offsets=placement.offsets,
        frame=placement.frame,
        hflip=_plan_hflip(view, keys, seed, epoch),
        vflip=uniforms(seed, epoch, keys, Operation.FLIP)[1] < view.vflip,
        jitter=None if view.augment.active else _plan_jitter(view, keys, seed, epoch),
        shift=_plan_translation(view, keys, seed, epoch),
        program=_plan_program(view, keys, seed, epoch),
    )


def _plan_hflip(view: TrainView, keys: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """(B,) bool."""
    if view.hflip == "alternating":  # the draw is that of no epoch
        return (random_bits(seed, 0, keys, Operation.FLIP_PARITY)[0] + np.uint32(epoch & 1)) % 2 == 1
    return uniforms(seed, epoch, keys, Operation.FLIP)[0] < view.hflip


def _plan_translation(view: TrainView, keys: np.ndarray, seed: int, epoch: int) -> Shift | None:
    if not view.translate:
        return None
    draw = uniforms(seed, epoch, keys, Operation.TRANSLATION)[:2]
    corners = np.floor(draw * (2 * view.translate + 1)).astype(np.int64) - view.translate
    return Shift(np.ascontiguousarray(corners.T), view.padding)


def _plan_program(view: TrainView, keys: np.ndarray, seed: int, epoch: int) -> Program | None:
    if not view.augment.active:
        return None
    jitter = _plan_jitter(view, keys, seed, epoch)
    colours = None if jitter is None else (jitter.factors, jitter.order)
    return plan_program(view.augment, keys, view.size, seed, epoch, mean=view.mean, std=view.std, jitter=colours)


def random_resized_crop(view: TrainView, keys: np.ndarray, sizes: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """Crop boxes (B, 4) int64 as torchvision's RandomResizedCrop draws them.

    Ten tries at an area uniform in `scale` and an aspect ratio log-uniform in `ratio`; the first box that fits is
    placed uniformly; without one, the largest central box within the ratio bounds.
    """
    width, height = sizes[:, 0].astype(np.float64), sizes[:, 1].astype(np.float64)
    boxes = _central_boxes(view, width, height)
    open_ = np.arange(len(keys))  # samples that still want a box
    low, high = math.log(view.ratio[0]), math.log(view.ratio[1])
    for attempt in range(CROP_TRIES):
        if not len(open_):
            break
        draw = uniforms(seed, epoch, keys[open_], Operation.CROP + attempt)
        w, h = width[open_], height[open_]
        area = w * h * (view.scale[0] + draw[0] * (view.scale[1] - view.scale[0]))
        aspect = np.exp(low + draw[1] * (high - low))
        box_w, box_h = np.rint(np.sqrt(area * aspect)), np.rint(np.sqrt(area / aspect))
        fits = (box_w > 0) & (box_w <= w) & (box_h > 0) & (box_h <= h)
        left, top = np.floor(draw[2] * (w - box_w + 1)), np.floor(draw[3] * (h - box_h + 1))
        boxes[open_[fits]] = np.stack([left, top, box_w, box_h], 1)[fits].astype(np.int64)
        open_ = open_[~fits]
    return boxes


def _central_boxes(view: TrainView, width: np.ndarray, height: np.ndarray) -> np.ndarray:
    """Largest central boxes (B, 4) int64 whose aspect ratio lies within the bounds."""
    ratio = width / height
    box_w = np.where(ratio > view.ratio[1], np.rint(height * view.ratio[1]), width)
    box_h = np.where(ratio < view.ratio[0], np.rint(width / view.ratio[0]), height)
    box_w, box_h = np.clip(box_w, 1, width), np.clip(box_h, 1, height)
    left, top = (width - box_w) // 2, (height - box_h) // 2
    return np.stack([left, top, box_w, box_h], 1).astype(np.int64)


def _plan_jitter(view: TrainView, keys: np.ndarray, seed: int, epoch: int) -> Jitter | None:
    if not any(view.color_jitter):
        return None
    strength = np.array(view.color_jitter)[:, None]
    # Factors are uniform in [max(0, 1 - s), 1 + s], the hue shift in [-s, s], as in torchvision.
    low = np.concatenate([np.maximum(0.0, 1 - strength[:3]), -strength[3:]])
    high = np.concatenate([1 + strength[:3], strength[3:]])
    factors = low + uniforms(seed, epoch, keys, Operation.JITTER) * (high - low)
    if view.jitter_prob < 1:
        wanted = uniforms(seed, epoch, keys, Operation.JITTER_WANTED)[0] < view.jitter_prob
        factors = np.where(wanted, factors, np.array([1.0, 1.0, 1.0, 0.0])[:, None])  # which change nothing
    order = np.argsort(uniforms(seed, epoch, keys, Operation.JITTER_ORDER), axis=0, kind="stable")
    return Jitter(factors.T.astype(np.float32), order.T)


def _plan_eval(view: EvalView, rows: np.ndarray, sizes: np.ndarray) -> BatchPlan:
    width, height = sizes[:, 0], sizes[:, 1]
    # timm floors the side that the crop is a share of; torchvision truncates the longer side.
    side = math.floor(view.size / view.crop_pct)
    if view.crop_mode == "squash":
        resized = np.full((len(rows), 2), side, np.int64)
    else:
        short = np.minimum(width, height)
        resized = np.stack([side * width // short, side * height // short], 1).astype(np.int64)
    zeros = np.zeros(len(rows), np.int64)
    return BatchPlan(
        rows=rows,
        size=view.size,
        interpolation=view.interpolation,
        boxes=np.stack([zeros, zeros, width, height], 1),
        resized=resized,
        offsets=_window(view, resized),
        hflip=np.full(len(rows), view.hflip),
        vflip=np.zeros(len(rows), bool),
        jitter=None,
        shift=Shift(np.tile(-np.array(view.shift, np.int64), (len(rows), 1)), "reflect") if any(view.shift) else None,
    )


def _plan_whole(view: WholeView, rows: np.ndarray, sizes: np.ndarray) -> BatchPlan:
    placement = plan_whole(view, sizes)
    places = placement.frame.places if placement.frame is not None else None
    if view.hflip and placement.frame is not None and places is not None:  # the frame is mirrored as a whole
        left = placement.frame.width - places[:, 0] - places[:, 2]
        places = np.concatenate([left[:, None], places[:, 1:]], 1)
        placement = replace(placement, frame=replace(placement.frame, places=places))
    return BatchPlan(
        rows=rows,
        size=view.size or max(view.frame or (1,)),
        interpolation=view.interpolation,
        boxes=placement.boxes,
        resized=placement.resized,
        offsets=placement.offsets,
        hflip=np.full(len(rows), view.hflip),
        vflip=np.zeros(len(rows), bool),
        jitter=None,
        frame=placement.frame,
    )


def _window(view: EvalView, resized: np.ndarray) -> np.ndarray:
    """Left and top (B, 2) of the crop in the resized image."""
    room = resized - view.size
    if view.anchor == "center":
        return np.rint(room / 2.0).astype(np.int64)  # half to even, as Python's round in torchvision
    right, bottom = "right" in view.anchor, "bottom" in view.anchor
    return room * np.array([right, bottom], np.int64)
