"""Scores of a biased classifier, and dense references of plans."""

import numpy as np

from fasttrain.scores.redistribution.marginals import Marginals
from fasttrain.scores.redistribution.passes import HostPasses
from fasttrain.scores.redistribution.rounding import round_greedy
from fasttrain.scores.table import ScoreTable


def log_softmax(values: np.ndarray) -> np.ndarray:
    top = values.max(1, keepdims=True)
    return values - top - np.log(np.exp(values - top).sum(1, keepdims=True))


def biased(samples: int, classes: int, seed: int = 0, strength: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    """Log-probabilities of a classifier that prefers some classes, on balanced true labels."""
    generator = np.random.default_rng(seed)
    labels = np.arange(samples) % classes
    logits = generator.normal(size=(samples, classes)) + strength * generator.normal(size=classes)
    logits[np.arange(samples), labels] += 3.0
    return log_softmax(logits), labels


def table_of(log_probs: np.ndarray, labels: np.ndarray | None = None) -> ScoreTable:
    samples, classes = log_probs.shape
    names = [f"c{i}" for i in range(classes)]
    known = {} if labels is None else {"labels": labels}
    return ScoreTable([f"s{i}" for i in range(samples)], log_probs.astype(np.float32), names, "log_probs", **known)


def rounded(how, values: np.ndarray, marginals: Marginals) -> np.ndarray:
    """Labels by a rounding that starts at prices of 0."""
    passes = HostPasses(values)
    found = passes.assign(np.zeros(values.shape[1]), 1.0, 2)
    result = how(passes, np.zeros(values.shape[1]), found, *marginals.whole(len(values)))
    return result if how is round_greedy else result.label


def plan(log_probs: np.ndarray, result) -> np.ndarray:
    return np.exp(log_softmax((log_probs + result.potential) / result.eps))
