"""The classes' shares in unlabelled samples, estimated from the scores of a model (label shift).

Both estimates assume that only the shares differ between validation and target, not what a class looks like.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from fasttrain.base.errors import ScoresError
from fasttrain.scores.redistribution.passes import Passes
from fasttrain.scores.table import ScoreTable

EM_TOLERANCE = 1e-5
EM_ITERATIONS = 1000
# A class that falls below this share of what it had before is said to have collapsed.
COLLAPSED = 1e-3
# Largest condition number of a confusion matrix that is inverted: noise in the counts grows by as much.
LARGEST_CONDITION = 100.0
# A negative estimate of a share is noise up to so much.
NEGATIVE = 1e-6


@dataclass(frozen=True)
class EstimatedPrior:
    """Shares that were estimated.

    Attributes:
        shares: (C,) float64, summing to 1.
        converged: whether the estimate was reached and not merely approached.
        figures: what else is to be reported.
    """

    shares: np.ndarray
    converged: bool
    figures: dict[str, Any]


def estimate_mlls(passes: Passes, source: np.ndarray, smoothing: float, classes: list[str]) -> EstimatedPrior:
    """Maximum-likelihood shares by EM (Saerens, Latinne & Decaestecker, Neural Computation 14, 2002).

    An iteration is one pass: the expected counts c under ``softmax(S + log q - log p)``, then ``q ~ c + smoothing``,
    the mode under a Dirichlet distribution that counts `smoothing` samples more of each class.

    Args:
        passes: over calibrated scores S.
        source: (C,) p, the prior that the model has in these.
        smoothing: at least 0.
        classes: for messages.

    Raises:
        ScoresError: a class collapses, as it does under scores that are not calibrated; or the source prior of a class
            is 0.
    """
    if (source <= 0).any():
        name = classes[int(np.flatnonzero(source <= 0)[0])]
        raise ScoresError(f"class {name!r} has no share in the source prior, so its share here cannot be estimated")
    samples = passes.samples
    log_source, q = np.log(source), source
    change, iterations = np.inf, 0
    while iterations < EM_ITERATIONS and change > EM_TOLERANCE:
        counts, _ = passes.sums(np.log(q) - log_source, 1.0)
        fallen = np.flatnonzero(counts < COLLAPSED * source * samples)
        if len(fallen):
            raise ScoresError(
                f"the estimate of class {classes[fallen[0]]!r} ({len(fallen)} such) collapses to below {COLLAPSED:g} "
                "of its share in the source; calibrate on more samples (--calibrate), smooth more (--smoothing), or "
                "give a prior file"
            )
        new = _smoothed(counts, samples, smoothing)
        change, q = float(np.abs(new - q).sum()), new
        iterations += 1
    return EstimatedPrior(q, change <= EM_TOLERANCE, {"iterations": iterations})


def estimate_bbse(predicted: np.ndarray, validation: ScoreTable, smoothing: float) -> EstimatedPrior:
    """Shares by inverting the confusion matrix (black box shift estimation: Lipton, Wang & Smola, ICML 2018).

    With A[i, j] the share of predictions i among the validation samples of class j and m[i] that among the target's
    samples, ``A q = m``.

    Args:
        predicted: (C,) counts of the predicted labels in the target.
        validation: rows with labels, classes in the target's order.
        smoothing: samples more of each class, as in `estimate_mlls`.

    Raises:
        ScoresError: a class without validation samples, a matrix that is too near to singular, or a negative estimate.
    """
    classes = len(predicted)
    confusion = np.zeros((classes, classes))
    np.add.at(confusion, (validation.argmax(), validation.labels), 1.0)
    of_class = confusion.sum(0)
    if (of_class == 0).any():
        absent = np.flatnonzero(of_class == 0)
        raise ScoresError(
            f"the calibration table has no sample of class {validation.classes[absent[0]]!r} ({len(absent)} such), so "
            "its confusion matrix cannot be inverted; give more samples, or use --estimator mlls"
        )
    confusion /= of_class
    condition = float(np.linalg.cond(confusion))
    if not condition <= LARGEST_CONDITION:
        raise ScoresError(
            f"the confusion matrix of the calibration table is too near to singular (condition number {condition:.3g}, "
            f"at most {LARGEST_CONDITION:g} is inverted); give more samples, or use --estimator mlls"
        )
    samples = int(predicted.sum())
    q = np.linalg.solve(confusion, predicted / samples)
    if (q < -NEGATIVE).any():
        worst = int(q.argmin())
        raise ScoresError(
            f"the estimated share of class {validation.classes[worst]!r} is negative ({q[worst]:.3g}, "
            f"{int((q < -NEGATIVE).sum())} such): validation and target differ by more than shares, or are too few "
            "samples; use --estimator mlls or a prior file"
        )
    counts = np.maximum(q, 0) * samples
    return EstimatedPrior(_smoothed(counts, samples, smoothing), True, {"condition": condition})


def _smoothed(counts: np.ndarray, samples: int, smoothing: float) -> np.ndarray:
    q = (counts + smoothing) / (samples + smoothing * len(counts))
    return q / q.sum()
