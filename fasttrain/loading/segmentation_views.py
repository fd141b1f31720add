"""What a segmentation model is shown: crops of scaled images in training, whole images in evaluation.

Masks follow every view by nearest neighbours (see `fasttrain.loading.masks`).
"""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from fasttrain.base.config import load_settings
from fasttrain.loading.views import Anchor, EvalView, Share, TrainView

Positive = Annotated[float, Field(gt=0)]


class SegmentationView(TrainView):
    """A random scale of the image, then a crop of `size` x `size` pixels, as mmsegmentation's ``Resize(ratio_range)``
    and ``RandomCrop(cat_max_ratio)`` make it; flips, translation, colour jitter and augmentation are those of
    `TrainView`.

    Where the scaled image is smaller than the crop, it lies at the top left of it. The rest shows the fill colour of
    `augment` (the view's mean by default), and counts for nothing in the mask.

    Attributes:
        scale: bounds of the factor, drawn uniformly.
        ratio: bounds of the change of the aspect ratio, log-uniform; the area stays.
        short: pixels that the image's shorter side has before it is scaled; 0 for its own.
        cat_max_ratio: no class should have more than this share of the crop's pixels, of those that count. Crops are
            drawn until one of them is so, or for `tries` times; then the last one is taken. 1 for the first crop.
        tries: see there, and `min_focus`.
        min_focus: pixels of the crop that the class has at least, for which a sample was drawn (see
            `fasttrain.loading.rare_classes.RareClasses`).
    """

    kind: Literal["segmentation"] = "segmentation"  # type: ignore[assignment]
    size: int = Field(default=512, ge=1)
    scale: tuple[Positive, Positive] = (0.5, 2.0)
    ratio: tuple[float, float] = (1.0, 1.0)
    short: int = Field(default=0, ge=0)
    cat_max_ratio: Share = 0.75
    tries: int = Field(default=10, ge=1, le=100)
    min_focus: int = Field(default=0, ge=0)

    @property
    def looks_at_masks(self) -> bool:
        """Whether crops depend on the pixels of masks."""
        return self.tries > 1 and (self.cat_max_ratio < 1 or self.min_focus > 0)


class WholeView(EvalView):
    """Whole images in frames of one size, for exact evaluation: nothing is cut off, and what is left of a frame counts
    for nothing.

    Attributes:
        size: the shorter side in pixels; 0 leaves images as large as they are. With ``crop_mode="squash"`` both sides.
        scale: factor of that (a test-time view).
        multiple: of pixels, that the frame's sides are.
        frame: width and height of the frame; None for the smallest that all images of the data set fit.
        anchor: where images lie in the frame.
        crop_pct: 1, for nothing is cropped.
    """

    kind: Literal["whole"] = "whole"  # type: ignore[assignment]
    size: int = Field(default=0, ge=0)
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    crop_pct: float = Field(default=1.0, ge=1, le=1)
    anchor: Anchor = "top_left"
    scale: Positive = 1.0
    multiple: int = Field(default=32, ge=1)
    frame: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] | None = None

    @model_validator(mode="after")
    def _within(self) -> "WholeView":
        if any(self.shift):
            raise ValueError("whole images are not shifted")
        if self.crop_mode == "squash" and not self.size:
            raise ValueError("crop_mode='squash' needs a size")
        return self


def segmentation_view(
    size: int = 512, *, color_jitter: float | tuple[float, ...] = 0.0, **settings: Any
) -> SegmentationView:
    """A `SegmentationView`; one number for `color_jitter` stands for brightness, contrast and saturation."""
    if isinstance(color_jitter, int | float):
        color_jitter = (color_jitter,) * 3
    jitter = (*color_jitter, 0.0)[:4] if len(color_jitter) == 3 else tuple(color_jitter)
    return load_settings(SegmentationView, {"size": size, "color_jitter": jitter, **settings}, "segmentation view")


def whole_view(size: int = 0, **settings: Any) -> WholeView:
    """A `WholeView` of images whose shorter side has `size` pixels; 0 for their own size."""
    return load_settings(WholeView, {"size": size, **settings}, "whole view")
