"""Settings of small runs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fasttrain.base.config import load_settings
from fasttrain.training.objects.settings import ObjectSettings


@pytest.fixture
def settings(things: Path, tmp_path: Path) -> Callable[..., ObjectSettings]:
    """Makes the settings of a run of seconds."""

    def make(name: str = "run", **changes: Any) -> ObjectSettings:
        values = {
            "data": str(things / "images"),
            "model": "test_resnet",
            "out": str(tmp_path / name),
            "size": 64,
            "epochs": 2,
            "batch_size": 8,
            "device": "cpu",
            "threads": 1,
        }
        return load_settings(ObjectSettings, {**values, **changes}, "objects train")

    return make
