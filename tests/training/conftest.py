"""Settings of small runs."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fasttrain.base.config import load_settings
from fasttrain.beton_build.build import build
from fasttrain.beton_build.mask_lists import find_masks
from fasttrain.beton_build.mask_rules import MaskRule
from fasttrain.beton_build.options import BuildOptions
from fasttrain.beton_build.sources import read_source
from fasttrain.training.settings import TrainSettings


@pytest.fixture(scope="session")
def masked_tree(colour_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A `.beton` of the images of `colour_tree` with masks: a square of class ``object`` on ``background``."""
    root = tmp_path_factory.mktemp("masked")
    square = np.zeros((40, 48), np.uint8)
    square[8:32, 12:36] = 1
    for image in colour_tree.rglob("*.jpg"):
        path = root / image.relative_to(colour_tree).with_suffix(".png")
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(square).save(path)
    samples = read_source(colour_tree)
    masks = find_masks(samples, MaskRule(("background", "object")), root=root)
    build(samples, root / "masked.beton", BuildOptions.model_validate({"mode": "raw", "workers": 1}), masks)
    return root / "masked.beton"


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
