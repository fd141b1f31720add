"""Frozen features: nearest neighbours and a linear classifier beside plain references."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

from fasttrain.base.errors import FasttrainError
from fasttrain.inference.features import Features, features_of
from fasttrain.inference.knn import knn_accuracy, knn_votes
from fasttrain.inference.linear_probe import fit_linear, linear_accuracy
from fasttrain.loading.loader import Loader
from fasttrain.loading.views import eval_view


class Colours(nn.Module):
    """The mean of each channel."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean((2, 3))


def clouds(count: int, classes: int = 4, width: int = 6, spread: float = 1.0, seed: int = 0) -> Features:
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(classes, width, generator=torch.Generator().manual_seed(9))
    labels = torch.randint(classes, (count,), generator=generator)
    return Features(centres[labels] + spread * torch.randn(count, width, generator=generator), labels)


@pytest.mark.parametrize(("k", "block"), [(5, (1024, 65536)), (5, (7, 11)), (20, (50, 3)), (500, (1024, 64))])
def test_votes_are_those_of_the_formula_in_any_blocks(k: int, block: tuple[int, int]) -> None:
    bank, asked = clouds(120), clouds(40, seed=1)
    votes = knn_votes(asked.values, bank.values, bank.labels, 4, k=k, temperature=0.1, block=block).numpy()
    known, queries = bank.values.double().numpy(), asked.values.double().numpy()
    cosines = (queries / np.linalg.norm(queries, axis=1)[:, None]) @ (known / np.linalg.norm(known, axis=1)[:, None]).T
    for row, found in zip(cosines, votes, strict=True):
        nearest = np.argsort(-row)[:k]
        expected = np.bincount(bank.labels[nearest], np.exp(row[nearest] / 0.1), minlength=4)
        np.testing.assert_allclose(found / found.sum(), expected / expected.sum(), rtol=1e-3, atol=1e-5)


def test_accuracies_count_the_right_ones() -> None:
    bank, asked = clouds(400, spread=0.1), clouds(60, spread=0.1, seed=1)
    assert knn_accuracy(bank, asked, 4) == {"knn_top1": 1.0, "knn_top5": 1.0}
    assert linear_accuracy(bank, asked, 4) == {"linear_top1": 1.0, "linear_top5": 1.0}
    wrong = Features(asked.values, (asked.labels + 1) % 4)
    assert knn_accuracy(bank, wrong, 4)["knn_top1"] == linear_accuracy(bank, wrong, 4)["linear_top1"] == 0


def test_the_linear_classifier_is_scikit_learns() -> None:
    found = clouds(300)
    weights = fit_linear(found.values, found.labels, 4, l2=1e-2)
    reference = LogisticRegression(C=1 / (1e-2 * 300), max_iter=2000, tol=1e-8).fit(found.values, found.labels)
    ours = weights[:-1].T - weights[:-1].T.mean(0)  # only differences between classes are determined
    np.testing.assert_allclose(ours, reference.coef_ - reference.coef_.mean(0), atol=2e-3)


def test_features_are_of_each_labelled_sample_once_in_order(colour_tree: Path) -> None:
    with Loader(colour_tree, 7, view=eval_view(16)) as loader:
        found = features_of(Colours(), loader)
        assert found.values.shape == (24, 3) and found.labels.tolist() == loader.labels.tolist()
        reversed_names = features_of(Colours(), loader, classes=["red", "green", "blue"], num_classes=3)
        assert reversed_names.labels.tolist() == [2 - label for label in found.labels.tolist()]
        with pytest.raises(FasttrainError, match="take one that pools them"):
            features_of(nn.Identity(), loader)
    assert knn_accuracy(found, found, 3, k=3)["knn_top1"] == 1


def test_data_without_labels_are_refused(colour_tree: Path, tmp_path: Path) -> None:
    for path in sorted((colour_tree / "red").iterdir())[:2]:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    with Loader(tmp_path, 2, view=eval_view(16)) as loader, pytest.raises(FasttrainError, match="no labelled sample"):
        features_of(Colours(), loader, num_classes=3)
