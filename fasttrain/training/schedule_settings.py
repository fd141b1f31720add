"""Settings of the learning rate's way through a run."""

import re
from typing import Literal

from pydantic import Field, field_validator, model_validator

from fasttrain.base.config import Settings

KINDS = ("cosine", "linear", "poly", "onecycle", "constant", "step", "milestones", "plateau")
SMOOTH = ("cosine", "linear", "poly", "onecycle")
EPOCHS_OF_1X = 12
LrWithBatch = Literal["none", "linear", "sqrt"]


def multiple_of(kind: str) -> int | None:
    """N of a schedule ``Nx``, None for one of `KINDS`."""
    found = re.fullmatch(r"([1-9]\d{0,3})x", kind)
    return int(found[1]) if found else None


def epochs_of(kind: str) -> int | None:
    """The length of a run that a schedule states itself; None for those that fit any."""
    multiple = multiple_of(kind)
    return None if multiple is None else EPOCHS_OF_1X * multiple


class ScheduleSettings(Settings):
    """Warm-up, then one of several shapes, all per step.

    Attributes:
        kind: ``cosine``, ``linear``, ``poly`` and ``onecycle`` fall smoothly to `final_lr_share`; ``constant`` stays;
            ``step`` falls by `gamma` every `step_epochs`, ``milestones`` at each of `milestones` (epochs), ``plateau``
            when the training loss has not fallen for more than `patience` epochs. ``1x`` is 12 epochs: one of warm-up,
            falls after 7 and 10; ``Nx`` is N times as long.
        warmup_epochs: length of the linear rise, parts of an epoch allowed; None for 1 (``onecycle``: 0.3 of the run,
            along a cosine; ``Nx``: N).
        final_lr_share: learning rate of the last step as a share of the peak.
        span: the part of the way that this run goes, of those that fall smoothly, where several runs go it one after
            the other: ``[0, 0.6]`` for the first 120 of 200 epochs, ``[0.6, 1]`` for the others.
        gamma: what it is multiplied by at each fall.
        power: of ``poly``.
    """

    kind: str = "cosine"
    warmup_epochs: float | None = Field(default=None, ge=0)
    final_lr_share: float = Field(default=0.0, ge=0, le=1)
    span: tuple[float, float] = (0.0, 1.0)
    gamma: float = Field(default=0.1, gt=0, lt=1)
    power: float = Field(default=0.9, gt=0)
    step_epochs: float = Field(default=30, gt=0)
    milestones: tuple[int, ...] = ()
    patience: int = Field(default=3, ge=0)

    @field_validator("kind")
    @classmethod
    def _known(cls, kind: str) -> str:
        if kind not in KINDS and multiple_of(kind) is None:
            raise ValueError(f"there is no such schedule; known are {', '.join(KINDS)} and 1x, 2x, …")
        return kind

    @model_validator(mode="after")
    def _span_of_a_smooth_way(self) -> "ScheduleSettings":
        if self.span != (0, 1) and self.kind not in SMOOTH:
            raise ValueError(f"span is for schedules that fall smoothly ({', '.join(SMOOTH)}); leave it out")
        if not 0 <= self.span[0] < self.span[1] <= 1:
            raise ValueError("span must be two rising shares between 0 and 1")
        return self

    @field_validator("milestones")
    @classmethod
    def _rising(cls, milestones: tuple[int, ...]) -> tuple[int, ...]:
        if any(milestone < 1 for milestone in milestones) or tuple(sorted(set(milestones))) != milestones:
            raise ValueError("milestones must be rising numbers of epochs")
        return milestones
