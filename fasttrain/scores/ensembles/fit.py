"""Weights of an ensemble fitted on labelled validation tables: a convex problem on the simplex, cross-validated."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from fasttrain.base.errors import ScoresError
from fasttrain.scores.ensembles.validation_tables import Validation

FOLDS = 5
# Strength of the pull towards equal weights; the last one is equal weights.
STRENGTHS = (0.0, 1e-3, 1e-2, 1e-1, 1.0, float("inf"))
# Weights below it are rounding of the solver; as 0, their tables need not be read.
LEAST_WEIGHT = 1e-6
SEED = 0


@dataclass(frozen=True)
class Fitted:
    """Weights (M,) that sum to 1, and how they came about: for the report and the table's metadata."""

    weights: np.ndarray
    facts: dict[str, Any]


def fit_weights(validation: Validation, space: str, temperatures: np.ndarray) -> Fitted:
    """Weights on the simplex that minimise ``NLL(w) + strength * M * |w - 1/M|^2``.

    The NLL is that of the mixture of probabilities, or in logits and log_probs space that of the normalised geometric
    mean; both are convex in w. The strength is the one with the least NLL over 5 folds that were left out.

    Args:
        validation: labelled tables, one a model.
        space: ``logits``, ``probs`` or ``log_probs``.
        temperatures: (M,) that the scores are divided by before.
    """
    losses: _Losses
    if space == "probs":
        losses = _MixtureLosses(validation, temperatures)
    else:
        losses = _GeometricLosses(*validation.all_scores("log_probs", temperatures))
    everything = list(range(FOLDS))
    tried = []
    for strength in STRENGTHS:
        total, weights = 0.0, None
        for fold in everything:
            weights = _minimise(losses, [other for other in everything if other != fold], strength, weights)
            total += losses.total(weights, fold)[0]
        tried.append({"strength": strength, "nll": total / losses.samples})
    # Of equals the stronger: a difference below rounding is none.
    best = min(reversed(tried), key=lambda row: round(row["nll"], 9))
    weights = _minimise(losses, everything, best["strength"], None)
    uniform = np.full(losses.models, 1 / losses.models)
    facts = {
        "strength": _named(best["strength"]),
        "cross_validation": {_named(row["strength"]): row["nll"] for row in tried},
        "fitted_on": losses.samples,
        "nll_fitted": _mean(losses, weights),
        "nll_uniform": _mean(losses, uniform),
    }
    return Fitted(weights, facts)


class _Losses(Protocol):
    models: int
    samples: int

    def total(self, weights: np.ndarray, fold: int) -> tuple[float, np.ndarray]:
        """NLL summed over the samples of a fold, and its gradient (M,)."""
        ...

    def size(self, fold: int) -> int:
        """Samples of a fold."""
        ...


class _Folded:
    """Samples that are in random order, so that a fold is a slice."""

    def __init__(self, samples: int, models: int) -> None:
        if samples < FOLDS:
            raise ScoresError(f"{samples} samples are too few for {FOLDS} folds")
        self.samples, self.models = samples, models
        self._edges = np.linspace(0, samples, FOLDS + 1).astype(int)

    def _fold(self, fold: int) -> slice:
        return slice(int(self._edges[fold]), int(self._edges[fold + 1]))

    def size(self, fold: int) -> int:
        return int(self._edges[fold + 1] - self._edges[fold])


class _MixtureLosses(_Folded):
    """Of ``sum_m w_m p_m``: all that counts is what each model gives the true class."""

    def __init__(self, validation: Validation, temperatures: np.ndarray) -> None:
        super().__init__(len(validation), validation.models)
        columns = [validation.true_log_probs(number, float(t)) for number, t in enumerate(temperatures)]
        self._probs = np.exp(np.stack(columns, 1))[np.random.default_rng(SEED).permutation(len(validation))]

    def total(self, weights: np.ndarray, fold: int) -> tuple[float, np.ndarray]:
        probs = self._probs[self._fold(fold)]
        mixed = np.maximum(probs @ weights, np.finfo(np.float64).tiny)
        return float(-np.log(mixed).sum()), -((1 / mixed) @ probs)


class _GeometricLosses(_Folded):
    """Of ``softmax(sum_m w_m log p_m)``."""

    def __init__(self, log_probs: np.ndarray, labels: np.ndarray) -> None:
        super().__init__(len(labels), len(log_probs))
        self._log_probs = log_probs
        self._true = log_probs[:, np.arange(len(labels)), labels].astype(np.float64)

    def total(self, weights: np.ndarray, fold: int) -> tuple[float, np.ndarray]:
        part = self._log_probs[:, self._fold(fold)]
        flat = part.reshape(self.models, -1)  # a view
        mixed = (weights.astype(np.float32) @ flat).reshape(part.shape[1:])
        top = mixed.max(1, keepdims=True)
        mixed -= top
        np.exp(mixed, out=mixed)
        normaliser = mixed.sum(1, keepdims=True, dtype=np.float64)
        mixed /= normaliser.astype(np.float32)
        true = self._true[:, self._fold(fold)]
        loss = (np.log(normaliser) + top).sum(dtype=np.float64) - (weights @ true).sum()
        return float(loss), flat @ mixed.reshape(-1) - true.sum(1)


def _minimise(losses: _Losses, folds: list[int], strength: float, start: np.ndarray | None) -> np.ndarray:
    """(M,) float64 weights on the simplex."""
    from scipy.optimize import minimize

    models = losses.models
    uniform = np.full(models, 1 / models)
    if models == 1 or strength == float("inf"):
        return uniform
    samples = sum(losses.size(fold) for fold in folds)

    def objective(weights: np.ndarray) -> tuple[float, np.ndarray]:
        parts = [losses.total(weights, fold) for fold in folds]
        away = weights - uniform
        value = sum(part[0] for part in parts) / samples + strength * models * float(away @ away)
        gradient = sum(part[1] for part in parts) / samples + 2 * strength * models * away
        return value, np.asarray(gradient, np.float64)

    found = minimize(
        objective,
        uniform if start is None else start,
        jac=True,
        method="SLSQP",
        bounds=[(0, 1)] * models,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1, "jac": np.ones_like},
        options={"ftol": 1e-9, "maxiter": 200},
    )
    weights = np.where(found.x < LEAST_WEIGHT, 0, found.x)
    if not np.isfinite(weights).all() or weights.sum() <= 0:
        raise ScoresError("the weights could not be fitted; use --weights uniform or greedy")
    return weights / weights.sum()


def _mean(losses: _Losses, weights: np.ndarray) -> float:
    return sum(losses.total(weights, fold)[0] for fold in range(FOLDS)) / losses.samples


def _named(strength: float) -> str:
    return "uniform" if strength == float("inf") else f"{strength:g}"
