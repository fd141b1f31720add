"""Counts and what is made of them."""

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, jaccard_score, recall_score

from fasttrain.inference.segmentation.confusion import ConfusionMatrix


def some_masks(classes: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    truth = generator.integers(0, classes, (3, 20, 30))
    predicted = np.where(generator.random(truth.shape) < 0.6, truth, generator.integers(0, classes, truth.shape))
    truth[generator.random(truth.shape) < 0.1] = 255
    return predicted, truth.astype(np.uint8)


def counted(predicted: np.ndarray, truth: np.ndarray, classes: int = 4) -> ConfusionMatrix:
    matrix = ConfusionMatrix(classes, "cpu")
    matrix.add(torch.from_numpy(predicted), torch.from_numpy(truth))
    return matrix


def test_all_figures_are_those_of_scikit_learn():
    predicted, truth = some_masks()
    matrix = counted(predicted, truth)
    p, t = predicted[truth != 255], truth[truth != 255]
    assert np.array_equal(matrix.counts().numpy(), confusion_matrix(t, p))
    result = matrix.result(list("abcd"))
    assert result["pixels"] == len(t) and result["absent"] == []
    assert result["aacc"] == pytest.approx(accuracy_score(t, p))
    assert result["iou"] == pytest.approx(jaccard_score(t, p, average=None))
    assert result["miou"] == pytest.approx(jaccard_score(t, p, average="macro"))
    assert result["dice"] == pytest.approx(f1_score(t, p, average=None))
    assert result["mdice"] == result["mfscore"] == pytest.approx(f1_score(t, p, average="macro"))
    assert result["macc"] == pytest.approx(recall_score(t, p, average="macro"))


def test_classes_that_nobody_sees_are_left_out_of_the_means_and_named():
    predicted, truth = some_masks()
    with_more = counted(predicted, truth, classes=6).result(list("abcdef"))
    without = counted(predicted, truth).result()
    assert with_more["absent"] == ["e", "f"] and with_more["iou"][4:] == [None, None]
    assert [with_more[key] for key in ("miou", "mdice", "macc")] == [without[key] for key in ("miou", "mdice", "macc")]
    predicted[0, 0, 0], truth[0, 0, 0] = 4, 0  # predicted where it is not: it counts as 0, but has no recall
    wrong = counted(predicted, truth, classes=6).result(list("abcdef"))
    assert wrong["absent"] == ["f"] and wrong["iou"][4] == 0 and wrong["acc"][4] is None
    assert wrong["miou"] < without["miou"]


def test_nothing_counted_gives_no_figures():
    result = counted(np.zeros((2, 2), np.int64), np.full((2, 2), 255, np.uint8), 2).result()
    assert (
        result["pixels"] == 0 and result["miou"] is None and result["aacc"] is None and result["absent"] == ["0", "1"]
    )


def test_truth_beyond_the_classes_and_other_shapes_are_refused():
    with pytest.raises(RuntimeError):
        counted(np.zeros((2, 2), np.int64), np.full((2, 2), 4, np.uint8))
    with pytest.raises(ValueError, match="differ in shape"):
        counted(np.zeros((2, 2), np.int64), np.zeros((2, 3), np.uint8))
