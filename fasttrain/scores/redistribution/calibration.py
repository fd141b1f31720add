"""Bias-corrected temperature scaling, fitted on a labelled validation table, and what must hold of such a table."""

from dataclasses import dataclass

import numpy as np

from fasttrain.base.errors import ScoresError
from fasttrain.scores.redistribution.passes import log_scores
from fasttrain.scores.table import ScoreTable

# Standard deviation, in nats, of the normal distribution that a class's bias is thought to be from.
BIAS_SPREAD = 1.0
BLOCK_ENTRIES = 1 << 20
# Bounds of 1 / temperature.
SHARPNESS = (1e-2, 1e2)


@dataclass(frozen=True)
class Calibration:
    """Calibrated log-probabilities are ``log_softmax(scores / temperature + bias)``.

    Attributes:
        temperature: above 0.
        bias: (C,) float64 with mean 0.
        nll_before, nll_after: mean negative log-likelihood on the validation table, in nats a sample.
        shares: (C,) float64 mean calibrated probability on the validation table: the prior that the model has in it.
    """

    temperature: float
    bias: np.ndarray
    nll_before: float
    nll_after: float
    shares: np.ndarray


def matched(validation: ScoreTable, target: ScoreTable) -> ScoreTable:
    """The labelled rows of a validation table, its classes in the order of the target's.

    Raises:
        ScoresError: no labels, other classes, or samples of the target itself, whose labels nothing may be fitted on.
    """
    both = set(validation.ids) & set(target.ids)
    if both:
        raise ScoresError(
            f"the calibration table holds {len(both)} samples of the table itself ({min(both)!r}, …), whose labels "
            "nothing may be fitted on; give one of other samples"
        )
    print_of = validation.meta.get("data_fingerprint")
    if print_of is not None and print_of == target.meta.get("data_fingerprint"):
        raise ScoresError("the calibration table is of the very data that is re-distributed; give one of other samples")
    if sorted(validation.classes) != sorted(target.classes):
        odd = sorted(set(validation.classes) ^ set(target.classes))
        raise ScoresError(f"the calibration table has other classes than the table ({odd[0]!r}, {len(odd)} such)")
    known = np.flatnonzero(validation.labels >= 0)
    if not len(known):
        raise ScoresError("the calibration table has no true labels; import it with --labels")
    position = {name: column for column, name in enumerate(validation.classes)}
    columns = np.array([position[name] for name in target.classes])
    back = np.argsort(columns).astype(np.int32)
    same = len(known) == len(validation) and (columns == np.arange(len(columns))).all()
    return ScoreTable(
        ids=[validation.ids[row] for row in known.tolist()],
        scores=validation.scores if same else validation.scores[np.ix_(known, columns)],
        classes=target.classes,
        kind=validation.kind,
        labels=back[validation.labels[known]],
        meta=validation.meta,
    )


def fit_calibration(validation: ScoreTable) -> Calibration:
    """Temperature and biases of the least negative log-likelihood (Alexandari, Kundaje & Shrikumar, ICML 2020).

    The objective is convex in 1 / temperature and the biases. A class's bias has a normal prior of `BIAS_SPREAD`, so
    that classes with few samples keep near 0.

    Args:
        validation: rows with labels, all of them (`matched`).

    Raises:
        ScoresError: the fit did not end.
    """
    from scipy.optimize import minimize

    samples, classes = validation.scores.shape
    scores = log_scores(validation, slice(None))
    counts = np.bincount(validation.labels, minlength=classes)

    def objective(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        loss, slope, sums = _likelihood(scores, validation.labels, parameters[0], parameters[1:])
        bias = parameters[1:] / BIAS_SPREAD
        gradient = np.append(slope, sums - counts + bias / BIAS_SPREAD)
        return (loss + 0.5 * float(bias @ bias)) / samples, gradient / samples

    first = np.append(1.0, np.zeros(classes))
    limits = [SHARPNESS, *[(None, None)] * classes]
    found = minimize(objective, first, jac=True, method="L-BFGS-B", bounds=limits, options={"maxiter": 500})
    if not found.success:
        raise ScoresError(f"the calibration did not converge ({found.message}); give more validation samples")
    sharpness, bias = float(found.x[0]), found.x[1:] - found.x[1:].mean()
    after, _, sums = _likelihood(scores, validation.labels, sharpness, bias)
    before, _, _ = _likelihood(scores, validation.labels, 1.0, np.zeros(classes))
    return Calibration(1 / sharpness, bias, before / samples, after / samples, sums / samples)


def _likelihood(
    scores: np.ndarray, labels: np.ndarray, sharpness: float, bias: np.ndarray
) -> tuple[float, float, np.ndarray]:
    """Summed negative log-likelihood, its slope in the sharpness, and the (C,) summed probabilities; float64."""
    loss, slope, sums = 0.0, 0.0, np.zeros(len(bias))
    step = max(1, BLOCK_ENTRIES // len(bias))
    for start in range(0, len(scores), step):
        # A row's constant is free; from the largest score on down, no product of sharpness and score overflows.
        block = scores[start : start + step].astype(np.float64)
        block -= block.max(1, keepdims=True)
        finite = np.maximum(block, -1e30)  # -inf times a probability of 0 is 0
        exponent = sharpness * block + bias
        top = exponent.max(1, keepdims=True)
        plan = np.exp(exponent - top)
        normaliser = plan.sum(1, keepdims=True)
        plan /= normaliser
        own = labels[start : start + step, None]
        loss += float((top + np.log(normaliser)).sum() - np.take_along_axis(np.maximum(exponent, -1e30), own, 1).sum())
        slope += float((plan * finite).sum() - np.take_along_axis(finite, own, 1).sum())
        sums += plan.sum(0)
    return loss, slope, sums
