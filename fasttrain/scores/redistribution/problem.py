"""A score table and the settings of its re-distribution, made ready to be solved: passes, prior, marginals."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from fasttrain.base.distributed import gather_on_all
from fasttrain.scores.redistribution.calibration import fit_calibration, matched
from fasttrain.scores.redistribution.estimated_priors import EstimatedPrior, estimate_bbse, estimate_mlls
from fasttrain.scores.redistribution.marginals import Marginals, bounds
from fasttrain.scores.redistribution.passes import CalibratedPasses, Passes, passes_of
from fasttrain.scores.redistribution.priors import (
    ESTIMATE,
    TRAIN,
    TRAIN_COUNTS,
    UNIFORM,
    read_prior,
    shares,
    train_prior,
)
from fasttrain.scores.redistribution.settings import RedistributeSettings
from fasttrain.scores.redistribution.sinkhorn import SinkhornResult, solve
from fasttrain.scores.table import ScoreTable

# An estimated prior may be wrong, so no class's scores change by more than a factor of 10 for it.
ESTIMATED_MAX_SHIFT = math.log(10)


@dataclass(frozen=True)
class Problem:
    """What is to be solved.

    Attributes:
        passes: over the scores, calibrated ones perhaps.
        shares: (C,) float64 of the classes.
        estimate: where the shares are estimated.
        before: (n,) int32 argmax of this rank's rows.
    """

    passes: Passes
    shares: np.ndarray
    estimate: EstimatedPrior | None
    before: np.ndarray

    def marginals(self, settings: RedistributeSettings) -> Marginals:
        """What the column sums are to keep to."""
        limit = settings.max_shift
        if limit is None:
            limit = math.inf if self.estimate is None else ESTIMATED_MAX_SHIFT
        return bounds(
            self.shares,
            self.passes.samples,
            settings.lower,
            settings.upper,
            settings.equality,
            relax=settings.relax,
            max_shift=None if limit == math.inf else limit,
        )

    def solve(self, settings: RedistributeSettings) -> tuple[Marginals, SinkhornResult]:
        """Marginals and plan; bounds that cannot be kept are refused before the first pass."""
        marginals = self.marginals(settings)
        if settings.round != "argmax" and marginals.relax is None and marginals.max_shift is None:
            marginals.whole(self.passes.samples)  # refused now, not when all is done
        return marginals, solve(self.passes, marginals, eps=settings.eps, tolerance=settings.tolerance)


def read_problem(
    table: ScoreTable, settings: RedistributeSettings, counts: Mapping[str, float] | None = None
) -> Problem:
    """Passes over this rank's rows of a table, and the prior.

    Args:
        table: the scores.
        settings: see there.
        counts: of each class by name, instead of what ``settings.prior`` says.

    Raises:
        ScoresError: the prior does not fit the table, or cannot be estimated.
    """
    if counts is None and settings.prior not in (UNIFORM, TRAIN, ESTIMATE):
        counts_shares = read_prior(settings.prior, table.classes)  # before anything is read or copied
    elif counts is not None:
        counts_shares = shares(counts, table.classes, f"prior {settings.prior}")
    elif settings.prior == TRAIN:
        counts_shares = train_prior(table)
    else:
        counts_shares = np.full(len(table.classes), 1 / len(table.classes))
    passes: Passes = passes_of(table, settings.device)
    before = table.argmax(passes.rows)
    if settings.prior != ESTIMATE:
        return Problem(passes, counts_shares, None, before)
    passes, estimate = _estimated(table, settings, passes, before)
    return Problem(passes, estimate.shares, estimate, before)


def _estimated(
    table: ScoreTable, settings: RedistributeSettings, passes: Passes, before: np.ndarray
) -> tuple[Passes, EstimatedPrior]:
    """Passes over scores as they are to be used, and the shares."""
    if settings.calibrate is None:
        source = train_prior(table) if TRAIN_COUNTS in table.meta else np.full(passes.columns, 1 / passes.columns)
        found = estimate_mlls(passes, source, settings.smoothing, table.classes)
        return passes, replace(found, figures={**found.figures, "calibrated": False})
    validation = matched(ScoreTable.read(settings.calibrate), table)
    if settings.estimator == "bbse":
        predicted = np.bincount(before, minlength=passes.columns)
        return passes, estimate_bbse(sum(gather_on_all(predicted)), validation, settings.smoothing)
    fit = fit_calibration(validation)
    calibrated = CalibratedPasses(passes, fit.temperature, fit.bias)
    found = estimate_mlls(calibrated, fit.shares, settings.smoothing, table.classes)
    told = {"temperature": fit.temperature, "nll_before": fit.nll_before, "nll_after": fit.nll_after}
    return calibrated, replace(found, figures={**found.figures, "calibrated": True, **told})
