"""How maps become masks. What is not given has the values of the NICO system (those of C2AM, arXiv 2203.13505)."""

from typing import Annotated

from pydantic import Field

from fasttrain.base.config import Settings
from fasttrain.inference.segmentation.scores import ViewSettings

Positive = Annotated[float, Field(gt=0)]


class CrfSettings(Settings):
    """The dense CRF that draws a mask to the edges of its photo (see `fasttrain.kernels.dense_crf`).

    Attributes:
        iterations: of the mean field.
        share: probability that a pixel's label is right before.
        near_sigma, near_weight: the kernel over places, in pixels; a weight of 0 leaves it out.
        alike_sigma, alike_colour, alike_weight: the kernel over places and colours, in pixels and levels; the same.
        longest: photos with a longer side are refined at this one, and their masks enlarged; 0 for none.
    """

    iterations: int = Field(default=4, ge=1)
    share: float = Field(default=0.7, gt=0.5, lt=1)
    near_sigma: Positive = 3.0
    near_weight: float = Field(default=3.0, ge=0)
    alike_sigma: Positive = 50.0
    alike_colour: Positive = 5.0
    alike_weight: float = Field(default=10.0, ge=0)
    longest: int = Field(default=1024, ge=0)


class ObjectMaskSettings(Settings):
    """From maps to masks.

    Attributes:
        scales: factors of the images' size; the maps are added up over all of them.
        hflip: mirror images are added, too.
        threshold: an object is where the map, divided by its maximum, is above it.
        crf: what then follows the photo's edges; None for nothing.
    """

    scales: tuple[Positive, ...] = Field(default=(0.5, 1.0, 1.5, 2.0), min_length=1)
    hflip: bool = True
    threshold: float = Field(default=0.55, gt=0, lt=1)
    crf: CrfSettings | None = CrfSettings()

    @property
    def views(self) -> ViewSettings:
        """How images are shown to the model."""
        return ViewSettings(scales=self.scales, hflip=self.hflip)
