import pytest

from fasttrain.base.config import load_settings
from fasttrain.base.errors import ConfigError
from fasttrain.training.settings import TrainSettings


def test_contradictory_settings_are_refused():
    with pytest.raises(ConfigError, match="exclude each other"):
        load_settings(TrainSettings, {"data": "a", "weights": "w.pth", "pretrained": True})
    with pytest.raises(ConfigError, match=r"optimizer\.lr"):
        load_settings(TrainSettings, {"data": "a", "optimizer": {"lr": 0}})
