import sys
import types

import pytest

from fasttrain.base.config import load_settings
from fasttrain.base.errors import ConfigError
from fasttrain.training.run import train
from fasttrain.training.settings import TrainSettings


def settings(colour_tree, tmp_path, **changes):
    values = {
        "data": str(colour_tree), "model": "test_resnet", "out": str(tmp_path / "run"), "epochs": 2, "batch_size": 6,
        "size": 32, "device": "cpu",
    }  # fmt: skip
    return load_settings(TrainSettings, values | changes)


class Calls(types.ModuleType):
    """A module whose functions note how they are called; what they give does the same."""

    def __init__(self, name, calls, gives=None):
        super().__init__(name)
        self.__dict__.update(_calls=calls, _gives=gives or {}, __spec__=types.SimpleNamespace(name=name))

    def __getattr__(self, name):
        def call(*arguments, **named):
            self._calls.append((name, arguments, named))
            return self._gives.get(name, self)

        return call


def test_wandb_gets_the_settings_and_each_epochs_figures(colour_tree, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setitem(sys.modules, "wandb", Calls("wandb", calls))
    train(settings(colour_tree, tmp_path, trackers=["wandb"]))
    assert [name for name, _, _ in calls] == ["init", "log", "log", "finish"]
    assert calls[0][2]["id"] == "run" and calls[0][2]["config"]["epochs"] == 2
    assert [call[2]["step"] for call in calls[1:3]] == [0, 1] and calls[1][1][0]["train_loss"] > 0


@pytest.mark.parametrize("known", [[], [types.SimpleNamespace(info=types.SimpleNamespace(run_id="7"))]])
def test_mlflow_goes_on_with_a_run_that_it_knows(colour_tree, tmp_path, monkeypatch, known):
    calls = []
    monkeypatch.setitem(sys.modules, "mlflow", Calls("mlflow", calls, {"search_runs": known}))
    train(settings(colour_tree, tmp_path, trackers=["mlflow"]))
    names = [name for name, _, _ in calls]
    assert names[-3:] == ["log_metrics", "log_metrics", "end_run"]
    [start] = [call for call in calls if call[0] == "start_run"]
    assert start[2] == ({"run_id": "7"} if known else {"run_name": "run"})
    assert ("log_dict" in names) == (not known)


def test_a_missing_tracker_is_named_before_the_first_step(colour_tree, tmp_path):
    with pytest.raises(ConfigError, match=r"pip install mlflow"):
        train(settings(colour_tree, tmp_path, trackers=["mlflow"]))
    assert not (tmp_path / "run").exists()
