"""A recipe that makes masks without masks: sound from a classifier to a data set that holds them."""

from pathlib import Path
from typing import Any

from fasttrain.recipes.check import check
from fasttrain.recipes.command import command_of
from fasttrain.recipes.expand import expand
from fasttrain.recipes.load import load_recipe
from fasttrain.recipes.resources import Machine
from fasttrain.recipes.toolbox import Toolbox

from .conftest import write_recipe

STAGES: dict[str, Any] = {
    "photos": {"kind": "build", "sources": "${images}"},
    "classifier": {"kind": "train", "data": "${photos}", "model": "test_resnet", "size": 64, "epochs": 1},
    "mapper": {
        "kind": "objects_train",
        "data": "${photos}",
        "weights": "${classifier}",
        "model": "test_resnet",
        "size": 64,
        "contrast": {"area": 0.2},
    },
    "masks": {
        "kind": "objects_masks",
        "checkpoint": "${mapper}",
        "data": "${photos}",
        "threshold": 0.6,
        "scales": [0.5, 1],
        "pictures": 4,
    },
    "with_masks": {
        "kind": "build",
        "sources": "${images}",
        "masks": "${masks}",
        "mask_classes": "${masks.classes}",
    },
    "segmenter": {"kind": "segment_train", "data": "${with_masks}", "model": "test_efficientnet", "size": 32},
}


def test_masks_of_objects_go_from_a_classifier_into_a_data_set(things: Path, toolbox: Toolbox, tmp_path: Path) -> None:
    values = {"name": "objects", "vars": {"images": str(things / "images")}, "stages": STAGES}
    recipe = load_recipe(write_recipe(tmp_path / "objects.yaml", values), [])
    stages = expand(recipe, toolbox)
    assert check(recipe, stages, toolbox, Machine((), 2), tmp_path / "work") == []
    by_name = {stage.name: stage for stage in stages}

    def locate(output: Any) -> str:
        return f"{output.stage}.{output.output}"

    words = command_of(by_name["masks"], toolbox, Path("f"), locate).arguments
    assert words[:2] == ["objects", "masks"]
    for pair in (("--out", "f/masks"), ("--scales", "0.5,1"), ("--threshold", "0.6"), ("--pictures", "4")):
        assert words[words.index(pair[0]) + 1] == pair[1]
    built = command_of(by_name["with_masks"], toolbox, Path("f"), locate).arguments
    assert built[built.index("--masks") + 1] == "masks.masks"
    assert built[built.index("--mask-classes") + 1] == "masks.classes"


def test_settings_that_mean_nothing_are_found(things: Path, toolbox: Toolbox, tmp_path: Path) -> None:
    stages = {"mapper": {**STAGES["mapper"], "data": "${images}", "weights": None, "label_smoothing": 0.1}}
    values = {"name": "objects", "vars": {"images": str(things / "images")}, "stages": stages}
    recipe = load_recipe(write_recipe(tmp_path / "objects.yaml", values), [])
    problems = check(recipe, expand(recipe, toolbox), toolbox, Machine((), 2), tmp_path / "work")
    assert len(problems) == 1 and "label_smoothing means nothing to mapping objects" in problems[0]
