"""What tells sound features from collapsed ones."""

import numpy as np
import pytest
import torch

from fasttrain.training.pretraining.features import FeatureStatistics, described, warning_of


def figures(features: torch.Tensor, parts: int = 4) -> dict[str, float]:
    statistics = FeatureStatistics()
    for part in features.chunk(parts):
        statistics.add(part)
    return statistics.take()


def test_figures_are_those_of_all_features_at_once() -> None:
    torch.manual_seed(0)
    features = torch.randn(300, 10) * torch.arange(1, 11) + 3
    found = figures(features)
    scaled = features.double().numpy()
    scaled /= np.linalg.norm(scaled, axis=1, keepdims=True)
    values = np.linalg.eigvalsh(np.cov(scaled.T, bias=True))
    shares = values / values.sum()
    assert found["feature_std"] == pytest.approx(np.sqrt(scaled.var(0).mean()) * np.sqrt(10), rel=1e-4)
    assert found["effective_rank"] == pytest.approx(np.exp(-(shares * np.log(shares)).sum()), rel=1e-4)
    assert found["top_variance"] == pytest.approx(shares.max(), rel=1e-4)


def test_spread_features_are_sound() -> None:
    torch.manual_seed(0)
    found = figures(torch.randn(4000, 16))
    assert found["feature_std"] == pytest.approx(1, abs=0.01)
    assert found["effective_rank"] == pytest.approx(16, abs=0.2)
    assert found["top_variance"] < 0.1
    assert warning_of(found) is None and "effective rank 16.0" in described(found)


@pytest.mark.parametrize(
    ("features", "words"),
    [
        (torch.ones(50, 8), "hardly differ"),
        (torch.ones(50, 8) + 0.001 * torch.randn(50, 8), "hardly differ"),
        (torch.randn(50, 1) * torch.ones(8), "lie on a line"),
    ],
)
def test_collapse_is_told_in_a_sentence(features: torch.Tensor, words: str) -> None:
    warning = warning_of(figures(features))
    assert warning is not None and words in warning and "collapsed" in warning and "\n" not in warning


def test_each_epoch_begins_anew() -> None:
    statistics = FeatureStatistics()
    assert statistics.take() == {}
    statistics.add(torch.ones(5, 4))
    assert statistics.take()["feature_std"] == 0
    statistics.add(torch.randn(500, 4))
    assert statistics.take()["feature_std"] > 0.9
    assert statistics.take() == {}
