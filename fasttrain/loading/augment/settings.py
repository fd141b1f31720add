"""What can be done to a training view besides crop and flips."""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from fasttrain.base.config import Settings
from fasttrain.loading.augment.policies import Policy, parse_policy

Share = Annotated[float, Field(ge=0, le=1)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


def _ordered(bounds: tuple[float, float], name: str) -> None:
    if bounds[0] > bounds[1]:
        raise ValueError(f"{name} must be (smallest, largest), not {bounds}")


class Erasing(Settings):
    """Rectangles are erased (Zhong et al., arXiv 1708.04896), as timm does it.

    Attributes:
        prob: of an image.
        mode: one colour for all (``const``: the view's mean), a normally distributed one for each box (``rand``), or
            for each pixel (``pixel``); their mean and deviation are those of the view. They are bytes, so that what
            lies beyond black and white is clipped.
        area: bounds of the erased share of the image, of all boxes together.
        aspect: bounds of a box's height / width, log-uniform.
        count: boxes of an image.
    """

    prob: Share = 0.0
    mode: Literal["const", "rand", "pixel"] = "const"
    area: tuple[Share, Share] = (0.02, 1 / 3)
    aspect: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] = (0.3, 1 / 0.3)
    count: int = Field(default=1, ge=1, le=16)

    @model_validator(mode="after")
    def _bounds(self) -> "Erasing":
        _ordered(self.area, "area")
        _ordered(self.aspect, "aspect")
        return self


class Dropout(Settings):
    """Squares are erased (DeVries and Taylor, arXiv 1708.04552): `holes` of `size` pixels, in the view's mean."""

    prob: Share = 0.0
    holes: int = Field(default=8, ge=1, le=64)
    size: int = Field(default=32, ge=1)


class Blur(Settings):
    """Gaussian blur with a standard deviation uniform in `sigma` (pixels)."""

    prob: Share = 0.0
    sigma: tuple[NotNegative, Annotated[float, Field(ge=0, le=50)]] = (0.1, 2.0)

    @model_validator(mode="after")
    def _bounds(self) -> "Blur":
        _ordered(self.sigma, "sigma")
        return self


class Noise(Settings):
    """Gaussian noise with a variance uniform in `variance` (levels of 0 to 255, squared)."""

    prob: Share = 0.0
    variance: tuple[NotNegative, NotNegative] = (10.0, 50.0)

    @model_validator(mode="after")
    def _bounds(self) -> "Noise":
        _ordered(self.variance, "variance")
        return self


class GridShuffle(Settings):
    """The image is cut into `cells` x `cells` pieces, which change places."""

    prob: Share = 0.0
    cells: int = Field(default=3, ge=2, le=16)


class Augment(Settings):
    """What is done to a view, in this order: transposition, policy, colour jitter (of the view), grey, blur, noise,
    grid shuffle, erasing, dropout.

    Attributes:
        policy: in timm's words: ``rand-m9-n2-mstd0.5-inc1`` (RandAugment), ``original``, ``v0`` … (AutoAugment),
            ``augmix-m3-w3`` (AugMix), ``3a`` (3-Augment); further ``trivial`` (TrivialAugmentWide) and
            ``corrupt-n1-s2`` (n common corruptions of severity at most s). None for none.
        transpose: probability that rows become columns.
        grey: probability of losing all colour.
        warp: interpolation of rotations, shears and translations.
        fill: colour of what they leave empty; None for the view's mean.
        erased_masks: what masks are where the image is erased: ``ignore``, or ``keep``: what they were.
        same_crop: the views of a sample show the same crop and flip; the first is left at that, the others are
            augmented. Made for AugMix's consistency loss, with three views.
    """

    policy: str | None = None
    transpose: Share = 0.0
    grey: Share = 0.0
    blur: Blur = Blur()
    noise: Noise = Noise()
    grid_shuffle: GridShuffle = GridShuffle()
    erasing: Erasing = Erasing()
    dropout: Dropout = Dropout()
    warp: Literal["bilinear", "nearest"] = "bilinear"
    fill: tuple[Annotated[int, Field(ge=0, le=255)], ...] | None = Field(default=None, min_length=3, max_length=3)
    erased_masks: Literal["ignore", "keep"] = "ignore"
    same_crop: bool = False

    @field_validator("policy")
    @classmethod
    def _known(cls, policy: str | None) -> str | None:
        if policy is not None:
            parse_policy(policy)
        return policy

    @property
    def parsed(self) -> Policy | None:
        """The policy, ready to be planned with."""
        return None if self.policy is None else parse_policy(self.policy)

    @property
    def active(self) -> bool:
        """Whether anything is done."""
        groups = (self.blur, self.noise, self.grid_shuffle, self.erasing, self.dropout)
        return bool(self.policy or self.transpose or self.grey or any(group.prob for group in groups))
