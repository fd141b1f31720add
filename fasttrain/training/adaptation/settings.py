"""Settings of domain adaptation that are not those of any segmentation training."""

from typing import Annotated, Literal

from pydantic import Field

from fasttrain.base.config import Settings
from fasttrain.training.adaptation.strong import StrongSettings
from fasttrain.training.mean_teacher import BatchNorm

Share = Annotated[float, Field(ge=0, le=1)]


class FeatureDistanceSettings(Settings):
    """How far the features may go from those of the weights that the run starts from (see
    `fasttrain.training.adaptation.feature_distance`).

    Attributes:
        weight: in the loss; 0 for none.
        classes: things, by name or number; None for all classes.
        majority: share of a cell's pixels that its class has at least.
    """

    weight: float = Field(default=0.005, ge=0)
    classes: tuple[str | int, ...] | None = None
    majority: Share = 0.75


class AdaptationSettings(Settings):
    """The published settings of DACS and DAFormer, by default.

    Attributes:
        alpha: share of the teacher's weights that a step keeps, once there were enough of them.
        batch_norm: what the teacher's batch normalisation goes by (see `MeanTeacher`).
        threshold: probability from which a pseudo-label is confident.
        weight: of the mixed images in the loss; the source's have 1.
        keep: whose weights are measured and saved as the run's: the ``student``'s, or the ``teacher``'s; the other's
            are saved beside them.
        feature_distance, strong: see there.
        pictures: every so many steps, a picture of source, target, pseudo-labels and mixture; 0 for none.
    """

    alpha: float = Field(default=0.999, ge=0, lt=1)
    batch_norm: BatchNorm = "average"
    threshold: Share = 0.968
    weight: float = Field(default=1.0, ge=0)
    keep: Literal["student", "teacher"] = "student"
    feature_distance: FeatureDistanceSettings = FeatureDistanceSettings()
    strong: StrongSettings = StrongSettings()
    pictures: int = Field(default=1000, ge=0)
