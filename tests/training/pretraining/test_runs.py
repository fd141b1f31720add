"""Whole runs of pre-training on a handful of generated images."""

from pathlib import Path
from typing import Any

import pytest
import torch

from fasttrain.base.config import load_settings
from fasttrain.base.errors import ConfigError, WeightsError
from fasttrain.base.runs import RunFolder
from fasttrain.models.checkpoint import load_state
from fasttrain.models.encoder import open_encoder, require_classifier
from fasttrain.models.opened import open_model
from fasttrain.models.weights import read_state_dict
from fasttrain.training.pretraining.run import PretrainResult, pretrain
from fasttrain.training.pretraining.settings import PretrainSettings
from fasttrain.training.run import STATE, train

from ..stopping import stopped_after

METHODS: dict[str, dict[str, Any]] = {
    "moco": {"method": "moco", "model": "test_resnet", "moco": {"dim": 16, "groups": 2}, "optimizer": {"lr": 0.05}},
    "mae": {
        "method": "mae",
        "model": "test_vit",
        "mae": {"decoder_width": 32, "decoder_depth": 1, "decoder_heads": 2},
        "optimizer": {"lr": 1e-3},
    },
}


@pytest.fixture
def settings(colour_tree: Path, tmp_path: Path):
    def make(method: str, name: str = "run", **changes: Any) -> PretrainSettings:
        values = {"data": str(colour_tree), "out": str(tmp_path / name), "epochs": 2, "batch_size": 8, "device": "cpu"}
        values |= {"size": 64 if method == "mae" else 32, **METHODS[method], **changes}
        return load_settings(PretrainSettings, values, "pretrain")

    return make


@pytest.mark.parametrize("method", METHODS)
def test_a_run_leaves_an_encoder_that_training_goes_on_from(method, settings, small_run, tmp_path, capsys) -> None:
    chosen = settings(method, ema=0.5)
    result = pretrain(chosen)
    assert isinstance(result, PretrainResult) and result.epochs == 2
    records = RunFolder(result.run).read_metrics()
    assert len(records) == 2
    assert {"train_loss", "lr", "feature_std", "effective_rank", "top_variance"} <= records[-1].keys()
    assert records[-1]["effective_rank"] == result.effective_rank
    assert "effective rank" in capsys.readouterr().err
    stored = read_state_dict(result.checkpoint)
    names = {"fc.weight", "head.weight"}
    assert not names & stored.keys() and not any("key_encoder" in name or "decoder" in name for name in stored)
    started = small_run("fine", model=chosen.model, size=chosen.size, epochs=1, weights=str(result.checkpoint))
    tuned = read_state_dict(train(started).checkpoint)
    assert names & tuned.keys()
    assert "with a new head for 3 classes" in capsys.readouterr().err
    with pytest.raises(WeightsError, match="an encoder without a classifier"):
        require_classifier(open_model(result.run), result.run)
    features = open_encoder(result.run).module(torch.randn(2, 3, chosen.size, chosen.size))
    assert features.shape[0] == 2 and features.ndim == 2
    # A classifier's checkpoint has features, too, and a run can start from its weights.
    fine = tmp_path / "fine" / "last.safetensors"
    assert open_encoder(fine).module(torch.randn(2, 3, chosen.size, chosen.size)).shape == features.shape
    assert pretrain(settings(method, "again", epochs=1, weights=str(fine))).epochs == 1


@pytest.mark.parametrize("method", METHODS)
def test_a_stopped_run_resumes_to_the_same_weights(method, settings) -> None:
    whole = pretrain(settings(method))
    stopped = settings(method, "stopped")
    with stopped_after(4):
        pretrain(stopped)
    with pytest.raises(ConfigError, match="seed=0, not 1"):
        pretrain(settings(method, "stopped", seed=1), resume=True)
    resumed = pretrain(stopped, resume=True)
    one, other = (load_state(result.run / STATE) for result in (whole, resumed))
    assert one["model"].keys() == other["model"].keys()
    assert all(torch.equal(one["model"][key], other["model"][key]) for key in one["model"])
    if method == "moco":
        assert torch.equal(one["loss"]["queue"], other["loss"]["queue"])
        assert one["loss"]["pointer"] == other["loss"]["pointer"] == 48 % 8
    assert one["position"]["train_loss"] == other["position"]["train_loss"]


def test_labels_are_not_looked_at(settings, colour_tree, tmp_path) -> None:
    plain = tmp_path / "plain"
    plain.mkdir()
    for path in colour_tree.rglob("*.jpg"):
        (plain / f"{path.parent.name}_{path.name}").write_bytes(path.read_bytes())
    result = pretrain(settings("moco", data=str(plain), epochs=1))
    assert result.feature_std is not None and result.feature_std > 0
