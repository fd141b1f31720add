"""Ensemble selection on validation tables: models added one by one, with replacement (Caruana et al., ICML 2004)."""

from typing import Any, Protocol

import numpy as np

from fasttrain.scores.ensembles.fit import Fitted
from fasttrain.scores.ensembles.validation_tables import Validation

LARGEST_ROUNDS = 100
# So many additions without a better value end the selection.
PATIENCE = 10
# Of the models, that a bag draws from.
BAG_SHARE = 0.5
SEED = 0


def greedy_weights(
    validation: Validation, space: str, temperatures: np.ndarray, *, objective: str = "nll", bags: int = 1
) -> Fitted:
    """Weights by how often a model was selected.

    In each round the model is added whose addition gives the best value; the best set on the way counts. With several
    bags each selects from a random half of the models, and their weights are averaged.

    Args:
        validation: labelled tables, one a model.
        space: ``logits``, ``probs`` or ``log_probs``, in which models are added up.
        temperatures: (M,) that the scores are divided by before.
        objective: ``nll`` or ``accuracy``.
        bags: 1 to select from all models.
    """
    pool: _Pool
    if space == "probs" and objective == "nll":
        columns = [validation.true_log_probs(number, float(t)) for number, t in enumerate(temperatures)]
        pool = _TruePool(np.exp(np.stack(columns, 1)))
    else:
        in_space = "probs" if space == "probs" else "log_probs"
        pool = _FullPool(*validation.all_scores(in_space, temperatures), objective)
    generator, counts = np.random.default_rng(SEED), np.zeros(validation.models)
    orders = []
    for _ in range(bags):
        models = np.arange(validation.models)
        if bags > 1:
            size = int(np.ceil(BAG_SHARE * len(models)))
            models = np.sort(generator.choice(models, size, replace=False))
        selected = _select(pool, models)
        orders.append(selected)
        counts += np.bincount(selected, minlength=len(counts)) / len(selected)
    facts: dict[str, Any] = {"objective": objective, "bags": bags, "fitted_on": pool.samples, "selected": orders}
    return Fitted(counts / counts.sum(), facts)


class _Pool(Protocol):
    samples: int

    def clear(self) -> None:
        """Begin a set without a model."""
        ...

    def value_with(self, model: int) -> float:
        """The objective of the set with another model; smaller is better."""
        ...

    def add(self, model: int) -> None: ...


def _select(pool: _Pool, models: np.ndarray) -> list[int]:
    """Models in the order of their selection."""
    pool.clear()
    selected: list[int] = []
    best, length = np.inf, 0
    while len(selected) < LARGEST_ROUNDS and len(selected) - length < PATIENCE:
        values = [pool.value_with(int(model)) for model in models]
        chosen = int(np.argmin(values))  # the first of equals
        pool.add(int(models[chosen]))
        selected.append(int(models[chosen]))
        if values[chosen] < best:
            best, length = values[chosen], len(selected)
    return selected[:length]


class _TruePool:
    """NLL of a mean of probabilities: the true class's are enough, (n, M)."""

    def __init__(self, probs: np.ndarray) -> None:
        self._probs, self.samples = probs, len(probs)
        self.clear()

    def clear(self) -> None:
        self._total, self._count = np.zeros(self.samples), 0

    def value_with(self, model: int) -> float:
        mean = (self._total + self._probs[:, model]) / (self._count + 1)
        return float(-np.log(np.maximum(mean, np.finfo(np.float64).tiny)).mean())

    def add(self, model: int) -> None:
        self._total += self._probs[:, model]
        self._count += 1


class _FullPool:
    """Any other objective, from all scores (M, n, C)."""

    def __init__(self, scores: np.ndarray, labels: np.ndarray, objective: str) -> None:
        self._scores, self._labels, self.samples = scores, labels, len(labels)
        self._objective = objective
        self.clear()

    def clear(self) -> None:
        self._total, self._count = np.zeros(self._scores.shape[1:], np.float32), 0

    def value_with(self, model: int) -> float:
        total = self._total + self._scores[model]
        if self._objective == "accuracy":
            return float((total.argmax(1) != self._labels).mean())
        total /= self._count + 1  # a geometric mean is normalised for its NLL
        top = total.max(1, keepdims=True)
        normaliser = np.log(np.exp(total - top).sum(1, dtype=np.float64)) + top[:, 0]
        return float((normaliser - total[np.arange(len(total)), self._labels]).mean())

    def add(self, model: int) -> None:
        self._total += self._scores[model]
        self._count += 1
