"""What a model is shown of an image, as settings that are stored with its weights."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from fasttrain.base.config import Settings, load_settings
from fasttrain.base.errors import ConfigError
from fasttrain.loading.augment.settings import Augment

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Triple = tuple[float, float, float]
Anchor = Literal["center", "top_left", "top_right", "bottom_left", "bottom_right"]
Padding = Literal["reflect", "black"]


class _View(Settings):
    """What both kinds of view have: output side in pixels, filter, normalisation (of pixels in 0–1)."""

    model_config = ConfigDict(allow_inf_nan=False)

    size: int = Field(default=224, ge=1)
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    mean: Triple = IMAGENET_MEAN
    std: tuple[Positive, Positive, Positive] = IMAGENET_STD


class TrainView(_View):
    """RandomResizedCrop (Szegedy et al., arXiv 1409.4842), flips, translation and colour jitter.

    A `scale` and a `ratio` of (1, 1) take square images as they are, which leaves the pixels alone where the size is
    theirs.

    Attributes:
        scale: bounds of the crop's share of the image area.
        ratio: bounds of its aspect ratio (width / height).
        hflip, vflip: probability of each flip. ``alternating`` mirrors each sample in every second epoch, half of them
            in the even ones, so that two epochs show every sample both ways (Jordan, arXiv 2404.00498).
        translate: pixels of the view that it is moved by at the most, to each side.
        padding: what is shown beyond its edge then: the view mirrored at its border pixels, or black.
        color_jitter: strength of (brightness, contrast, saturation, hue), as torchvision's ColorJitter takes them.
        jitter_prob: share of the views whose colours are jittered.
        augment: policies, erasing and more (see `fasttrain.loading.augment.settings.Augment`).
    """

    kind: Literal["train"] = "train"
    scale: tuple[Share, Share] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    hflip: Share | Literal["alternating"] = 0.5
    vflip: Share = 0.0
    translate: int = Field(default=0, ge=0)
    padding: Padding = "reflect"
    color_jitter: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    jitter_prob: Share = 1.0
    augment: Augment = Augment()

    @model_validator(mode="after")
    def _ordered(self) -> "TrainView":
        if not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError("scale must be (smallest, largest) share of the area, both above 0")
        if not 0 < self.ratio[0] <= self.ratio[1]:
            raise ValueError("ratio must be (smallest, largest) width / height, both above 0")
        if min(self.color_jitter) < 0 or self.color_jitter[3] > 0.5:
            raise ValueError("color_jitter strengths must not be negative, and that of hue at most 0.5")
        if self.translate >= self.size:
            raise ValueError(f"translate must be less than the {self.size} pixels of the view")
        return self


class EvalView(_View):
    """Resize, then one crop of `size`: the eval transform of timm, pixel for pixel.

    Attributes:
        crop_pct: `size` as a share of the resized image's side.
        crop_mode: ``center`` resizes the shorter side, ``squash`` both.
        anchor: where the crop lies; other than ``center`` for five-crop test-time views.
        hflip: mirror the crop (a test-time view).
        shift: pixels that the crop is moved to the right and downwards, mirrored at its border pixels (the same).
    """

    kind: Literal["eval"] = "eval"
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"
    crop_pct: float = Field(default=0.875, gt=0, le=1)
    crop_mode: Literal["center", "squash"] = "center"
    anchor: Anchor = "center"
    hflip: bool = False
    shift: tuple[int, int] = (0, 0)

    @model_validator(mode="after")
    def _within(self) -> "EvalView":
        if max(map(abs, self.shift)) >= self.size:
            raise ValueError(f"shift must be less than the {self.size} pixels of the view")
        return self


View = TrainView | EvalView


def train_view(size: int = 224, *, color_jitter: float | tuple[float, ...] = 0.0, **settings: Any) -> TrainView:
    """A `TrainView`; one number for `color_jitter` stands for brightness, contrast and saturation, without hue."""
    if isinstance(color_jitter, int | float):
        color_jitter = (color_jitter,) * 3
    jitter = (*color_jitter, 0.0)[:4] if len(color_jitter) == 3 else tuple(color_jitter)
    return load_settings(TrainView, {"size": size, "color_jitter": jitter, **settings}, "train view")


def eval_view(size: int = 224, **settings: Any) -> EvalView:
    """An `EvalView` of `size` pixels."""
    return load_settings(EvalView, {"size": size, **settings}, "eval view")


def parse_view(stored: dict[str, Any]) -> View:
    """Read what ``view.model_dump()`` gave, as checkpoints store it."""
    if not isinstance(stored, dict):
        raise ConfigError(f"a stored view is a mapping of settings, not a {type(stored).__name__}")
    from fasttrain.loading.segmentation_views import SegmentationView, WholeView

    kinds: dict[str, type[TrainView] | type[EvalView]] = {
        "train": TrainView,
        "eval": EvalView,
        "segmentation": SegmentationView,
        "whole": WholeView,
    }
    kind = kinds.get(str(stored.get("kind")))
    if kind is None:
        raise ConfigError(f"a stored view is of kind {stored.get('kind')!r}, not one of {', '.join(kinds)}")
    return load_settings(kind, stored, "stored view")
