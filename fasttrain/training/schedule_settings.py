"""Settings of the learning rate's way through a run."""

import re
from typing import Literal

from pydantic import Field, field_validator

from fasttrain.base.config import Settings

KINDS = ("cosine", "linear", "poly", "onecycle", "constant", "step", "milestones", "plateau")
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
        gamma: what it is multiplied by at each fall.
        power: of ``poly``.
    """

    kind: str = "cosine"
    warmup_epochs: float | None = Field(default=None, ge=0)
    final_lr_share: float = Field(default=0.0, ge=0, le=1)
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

    @field_validator("milestones")
    @classmethod
    def _rising(cls, milestones: tuple[int, ...]) -> tuple[int, ...]:
        if any(milestone < 1 for milestone in milestones) or tuple(sorted(set(milestones))) != milestones:
            raise ValueError("milestones must be rising numbers of epochs")
        return milestones
