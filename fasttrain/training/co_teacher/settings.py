"""Settings of the co-teacher, and what does not go with one."""

import math
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from fasttrain.base.config import Settings, refuse_idle
from fasttrain.training.mean_teacher import BatchNorm

if TYPE_CHECKING:
    from fasttrain.training.settings import TrainSettings

Share = Annotated[float, Field(ge=0, le=1)]


class CoTeacherSettings(Settings):
    """The published settings, by default, but for `weight`, which turns it on (2 is theirs).

    Attributes:
        weight: of the consistency of student and teacher in the loss, once it has risen; 0 for no co-teacher.
        domains: what tells each sample's domain, so that partners come from all domains equally often: the name of a
            field of the `.beton` that holds numbers (``build --keep domain``), ``folder`` for the first folder in the
            samples' ids, or a table with the columns id and domain (``.csv``, ``.tsv``). None: partners are any images.
        ratio: sides of the box of low frequencies whose amplitudes are mixed, of the whole spectrum's.
        temperature: of both softmaxes in the consistency.
        ramp_epochs: epochs of this run in which the weight rises; 0: it is there from the beginning.
        alpha: share of the teacher's weights that a step keeps, once there were enough of them.
        batch_norm: what the teacher's batch normalisation goes by (see `MeanTeacher`).
        keep: whose weights are kept as the run's: the ``student``'s or the ``teacher``'s; the other's are saved and
            measured beside them.
    """

    weight: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    domains: str | None = None
    ratio: Share = 0.2
    temperature: float = Field(default=10.0, gt=0)
    ramp_epochs: float = Field(default=5, ge=0)
    alpha: float = Field(default=0.9995, ge=0, lt=1)
    batch_norm: BatchNorm = "average"
    keep: Literal["student", "teacher"] = "student"

    @model_validator(mode="after")
    def _all_of_it_counts(self) -> "CoTeacherSettings":
        if self.weight == 0:
            refuse_idle(self, {"weight"}, "a run without co-teacher (weight 0)")
        return self

    def weight_of(self, epoch: int) -> float:
        """The weight in an epoch of this run, counted from 0: it rises as exp(-5 (1 - t)^2) (Laine and Aila, "Temporal
        ensembling", ICLR 2017, arXiv 1610.02242)."""
        risen = min(epoch / self.ramp_epochs, 1.0) if self.ramp_epochs else 1.0
        return self.weight * math.exp(-5 * (1 - risen) ** 2)


def co_teacher_conflict(settings: "TrainSettings") -> str | None:
    """What of a run's settings does not go with a co-teacher, as a sentence; None if all does."""
    if settings.co_teacher.weight == 0:
        return None
    unfit = {
        "ema": (settings.ema > 0, "the teacher is a moving average itself, see co_teacher.alpha"),
        "sam_rho": (settings.sam_rho > 0, "a step asks the teacher once"),
        "distill.teacher": (settings.distill.teacher is not None, "it has a teacher"),
        f"loss {settings.loss.kind}": (settings.loss.needs.views > 1, "it compares views of its own"),
        "resident": (settings.resident is not None, "it is for one stream of images"),
    }
    for name, (given, why) in unfit.items():
        if given:
            return f"{name} does not go with co_teacher: {why}; leave it out"
    return None
