"""Settings of the re-distribution, and which of them go together."""

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from fasttrain.base.config import Settings
from fasttrain.scores.redistribution.priors import ESTIMATE, UNIFORM

_ESTIMATING = {"estimator", "calibrate", "uncalibrated", "smoothing"}


class RedistributeSettings(Settings):
    """How labels are re-distributed. The defaults were set without looking at the labels of any test set.

    Attributes:
        method: ``sinkhorn``, or the ``greedy-k`` baseline.
        prior: ``uniform``, a CSV file of class and count, ``train`` (the counts of the training data, which the table
            holds), or ``estimate`` (from the scores themselves).
        estimator: of ``estimate``: ``mlls`` (maximum likelihood) or ``bbse`` (from the confusion matrix).
        calibrate: labelled score table of other samples, by the same model, that ``estimate`` needs; with ``mlls`` the
            calibrated scores are also those that the labels are from.
        uncalibrated: let ``mlls`` do without one. Scores that are too sure make it go badly wrong.
        smoothing: samples of each class that an estimate adds.
        equality: counts are to be exactly ``prior * N``.
        relax: these counts are only wished for, with this strength (rho of ``rho * KL``, in nats).
        lower, upper: bounds of the counts, as a factor of ``prior * N`` (``0.9x``) or as a count; a lower one of 0
            leaves the upper one alone.
        max_shift: what a class's scores may change by, in nats; inf for no limit. Default: log 10 under an estimated
            prior, no limit otherwise.
        eps: temperature on log-probabilities.
        tolerance: of the marginal error, as a share of the samples.
        round: from the plan to labels: ``argmax``, ``greedy`` or ``exact`` (the last two keep the bounds exactly; the
            counts of the plan, where these are wished for or where a class is at its largest shift).
        k: samples that a class should have at least, for ``greedy-k``, which has no other setting.
        device: where the passes over the scores run: ``cpu`` or ``cuda`` (torch).
    """

    method: Literal["sinkhorn", "greedy-k"] = "sinkhorn"
    prior: str = UNIFORM
    estimator: Literal["mlls", "bbse"] = "mlls"
    calibrate: Path | None = None
    uncalibrated: bool = False
    smoothing: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    equality: bool = False
    relax: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    lower: str = "0.9x"
    upper: str = "1.1x"
    max_shift: float | None = Field(default=None, gt=0)
    eps: float = Field(default=0.2, gt=0, allow_inf_nan=False)
    tolerance: float = Field(default=1e-3, gt=0)
    round: Literal["argmax", "greedy", "exact"] = "argmax"
    k: int | None = Field(default=None, ge=1)
    device: Literal["cpu", "cuda"] = "cpu"

    @model_validator(mode="after")
    def _no_setting_without_effect(self) -> "RedistributeSettings":
        given = self.model_fields_set
        if (self.method == "greedy-k") != (self.k is not None):
            raise ValueError("k belongs to method greedy-k, which needs it")
        if self.method == "greedy-k" and (idle := given - {"method", "k"}):
            raise ValueError(f"method greedy-k has no {', '.join(sorted(idle))}")
        counts = "equality" if self.equality else "relax"
        if (self.equality or self.relax is not None) and (idle := given & {"lower", "upper"}):
            raise ValueError(f"{counts} leaves no room for {' and '.join(sorted(idle))}; give one or the other")
        if self.equality and self.relax is not None:
            raise ValueError("counts are either exact (equality) or wished for (relax); give one or the other")
        if self.prior != ESTIMATE and (idle := given & _ESTIMATING):
            raise ValueError(f"{' and '.join(sorted(idle))} belong to prior estimate")
        if self.prior == ESTIMATE:
            self._check_guard()
        return self

    def _check_guard(self) -> None:
        if self.calibrate is not None and self.uncalibrated:
            raise ValueError("an estimate is either calibrated (calibrate) or not (uncalibrated); give one")
        if self.calibrate is None and self.estimator == "bbse":
            raise ValueError("estimator bbse needs a labelled score table for its confusion matrix (calibrate)")
        if self.calibrate is None and not self.uncalibrated:
            raise ValueError(
                "prior estimate needs a labelled score table of other samples to calibrate on (calibrate); without one "
                "the estimate can go badly wrong, and uncalibrated says that this is wanted"
            )
