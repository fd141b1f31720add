"""A small network trained from whitened patches, as the recipes for small images do it."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from fasttrain.base.config import load_settings, read_config, read_yaml
from fasttrain.base.errors import ConfigError
from fasttrain.inference.predict import predict
from fasttrain.models.opened import open_model
from fasttrain.models.weights import read_state_dict
from fasttrain.scores.table import ScoreTable
from fasttrain.training import initialisation
from fasttrain.training.run import train
from fasttrain.training.settings import TrainSettings
from fasttrain.training.stepper import Stepper


@pytest.fixture
def settings(colour_tree, tmp_path):
    def make(**changes) -> TrainSettings:
        values = {
            "data": str(colour_tree),
            "model": "airbench_small",
            "out": str(tmp_path / "run"),
            "epochs": 2,
            "batch_size": 8,
            "size": 16,
            "device": "cpu",
            "init": "whitening",
            "freeze": ["whiten.weight"],
            "memory_budget": "1GB",
            "optimizer": {"name": "muon-sgd", "lr": 0.1, "bias_lr": 5, "head_lr": 50, "options": {"ns_steps": 2}},
            "schedule": {"kind": "linear", "warmup_epochs": 0, "final_lr_share": 0.05},
            "augment": {"scale": (1, 1), "ratio": (1, 1), "hflip": "alternating", "translate": 1},
        }
        return load_settings(TrainSettings, {**values, **changes})

    return make


def test_the_run_begins_with_whitening_and_learns(settings, colour_tree, tmp_path):
    result = train(settings(epochs=3, val=str(colour_tree)))
    assert result.top1 is not None and result.top1 > 0.9
    weight = read_state_dict(result.checkpoint)["whiten.weight"]
    assert torch.equal(weight[12:], -weight[:12])  # frozen, and so as it was made
    predict(open_model(result.run), colour_tree, tmp_path / "s.arrow", tta="shift")
    table = ScoreTable.read(tmp_path / "s.arrow")
    assert (np.asarray(table.scores).argmax(1) == np.asarray(table.labels)).mean() > 0.9


def test_a_resumed_run_does_not_whiten_again_and_ends_in_the_same_weights(settings, tmp_path, monkeypatch):
    whole = read_state_dict(train(settings(freeze=())).checkpoint)
    stopped = settings(freeze=(), out=str(tmp_path / "stopped"))
    step, seen = Stepper.step, []

    def fails_later(self, *arguments):
        if len(seen) == 4:
            raise KeyboardInterrupt
        seen.append(1)
        step(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Stepper, "step", fails_later)
        with pytest.raises(KeyboardInterrupt):
            train(stopped)
    monkeypatch.setattr(initialisation, "_images", None)
    resumed = read_state_dict(train(stopped, resume=True).checkpoint)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_recipes_are_settings_found_by_name_or_by_path(tmp_path):
    for recipe in sorted((Path(__file__).parents[2] / "recipes").glob("cifar10*.yaml")):
        assert load_settings(TrainSettings, read_yaml(recipe) | {"data": "some.beton"}).epochs > 1
    path = tmp_path / "mine.yaml"
    path.write_text("epochs: 3\n")
    assert read_config(path) == read_config(str(path)) == {"epochs": 3}
    if find_spec("fasttrain.recipes") is None:
        pytest.skip("installed before there were recipes")
    assert read_config("cifar10")["model"].startswith("airbench")
    with pytest.raises(ConfigError, match="no recipe of that name; there are cifar10, cifar10_94"):
        read_config("cifar11")


def test_whitening_is_for_a_start_without_weights(settings):
    with pytest.raises(ConfigError, match="leave out one of the two"):
        settings(weights="some.pth")
