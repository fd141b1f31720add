"""Settings of small runs."""

from collections.abc import Callable
from pathlib import Path

import pytest

from fasttrain.base.config import load_settings
from fasttrain.training.settings import TrainSettings


@pytest.fixture
def small_run(colour_tree: Path, tmp_path: Path) -> Callable[..., TrainSettings]:
    """Makes the settings of a run of seconds on 24 images; the changes are settings by name, groups as dictionaries."""

    def make(name: str = "run", **changes: object) -> TrainSettings:
        values = {
            "data": str(colour_tree),
            "model": "test_resnet",
            "out": str(tmp_path / name),
            "epochs": 3,
            "batch_size": 6,
            "size": 32,
            "device": "cpu",
            "drop_rate": 0.2,
            "optimizer": {"lr": 5e-3},
        }
        return load_settings(TrainSettings, {**values, **changes}, "train")

    return make
