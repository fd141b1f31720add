"""Top-1, negative log-likelihood and calibration error of scores, summed up block by block."""

import numpy as np

from fasttrain.kernels.assign import assign

ECE_BINS = 15
# A label that a table holds impossible counts as the smallest float32, so that figures stay finite.
LEAST_LOG_P = float(np.log(float(np.finfo(np.float32).smallest_subnormal)))


class Figures:
    """Figures of the labelled samples among those that are added."""

    def __init__(self) -> None:
        self._samples, self._right, self._loss = 0, 0, 0.0
        self._bins = np.zeros((ECE_BINS, 2))  # sums of confidence and of right ones

    def add(self, scores: np.ndarray, kind: str, labels: np.ndarray) -> None:
        """Take in the scores (n, C) float16 or float32 of some samples with labels (n,), -1 where unknown."""
        known = labels >= 0
        if not known.any():
            return
        if not known.all():
            scores, labels = scores[known], labels[known]
        predicted, confidence, log_p = likelihoods(scores, kind, labels)
        right = predicted == labels
        self._samples += len(labels)
        self._right += int(right.sum())
        self._loss -= float(log_p.sum())
        # Bins (0, 1/15], (1/15, 2/15], … of the predicted class's probability (Guo et al., ICML 2017).
        places = np.clip(np.ceil(confidence * ECE_BINS).astype(int) - 1, 0, ECE_BINS - 1)
        self._bins[:, 0] += np.bincount(places, confidence, ECE_BINS)
        self._bins[:, 1] += np.bincount(places, right, ECE_BINS)

    def result(self) -> dict[str, float]:
        """top1, nll (nats a sample) and ece (15 bins of equal width); nothing where no label is known."""
        if not self._samples:
            return {}
        gap = np.abs(self._bins[:, 0] - self._bins[:, 1]).sum()
        figures = (self._right / self._samples, self._loss / self._samples, float(gap / self._samples))
        return dict(zip(("top1", "nll", "ece"), figures, strict=True))


def likelihoods(
    scores: np.ndarray, kind: str, labels: np.ndarray, temperature: float = 1.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What a table's scores (n, C), at a temperature, say of labels (n,).

    Returns:
        (n,) int32 predicted class, (n,) float64 its probability, (n,) float64 log-probability of the label, finite (a
        stored probability of 0 counts as the smallest number of its type).
    """
    at = np.arange(len(labels)), labels
    if kind == "probs" and temperature == 1:
        # As integers: probabilities are ordered as their bits are, and 16 bits are then compared several at once.
        predicted = scores.view(np.int16 if scores.dtype == np.float16 else np.int32).argmax(1).astype(np.int32)
        total = scores.sum(1, dtype=np.float64)
        of_label = np.maximum(scores[at].astype(np.float64), _smallest(scores))
        return predicted, scores[np.arange(len(labels)), predicted] / total, np.log(of_label / total)
    if kind == "probs":
        scores = np.log(np.maximum(scores.astype(np.float32), _smallest(scores)))
    found = assign(scores, np.zeros(scores.shape[1]), temperature)
    log_p = scores[at].astype(np.float64) / temperature - found.log_normaliser
    return found.label, found.probability.astype(np.float64), np.maximum(log_p, LEAST_LOG_P)


def _smallest(scores: np.ndarray) -> float:
    return float(np.finfo(scores.dtype).smallest_subnormal)
