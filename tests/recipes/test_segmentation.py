"""Recipes of segmentation: sound on data in the right layout, first steps with a tiny model, and who may see labels."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fasttrain.beton_build.reader import BetonReader
from fasttrain.recipes.check import check
from fasttrain.recipes.expand import expand
from fasttrain.recipes.graph import Stage
from fasttrain.recipes.load import load_recipe
from fasttrain.recipes.resources import Machine
from fasttrain.recipes.toolbox import Toolbox

from .conftest import fasttrain, write_recipe

GPUS = Machine(tuple("01234567"), 64)
TINY = (
    "model: test_efficientnet, size: 32, iterations: 2, interval: 1, batch_size: 2, head_channels: 4, head_embed: 4, "
    "threads: 1, device: cpu"
)
VISDA_TRIAL = f"trial={{{TINY}, pretrained: false, warmup_iterations: 0}}"
DUSK_TRIAL = ["start={}", f"trial={{{TINY}}}"]  # from random weights


def draw(folder: Path, count: int, classes: int, masks: str | None, images: str, suffix: str = "png") -> None:
    """Noise, with masks of stripes of all classes."""
    generator = np.random.default_rng(0)
    stripes = (np.arange(48) * classes // 48).astype(np.uint8)
    for number in range(count):
        (folder / images).mkdir(parents=True, exist_ok=True)
        mask = np.roll(np.tile(stripes, (36, 1)), 3 * number, 1)
        pixels = 20 * mask[..., None] + generator.integers(0, 20, (36, 48, 3), np.uint8)
        Image.fromarray(pixels).save(folder / images / f"{number}.{suffix}")
        if masks is not None:
            (folder / masks).mkdir(exist_ok=True)
            Image.fromarray(mask).save(folder / masks / f"{number}.{suffix}")


@pytest.fixture(scope="session")
def visda(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("visda")
    draw(root / "zerowastev1", 4, 5, "sem_seg", "data", "PNG")
    draw(root / "zerowastev2", 4, 5, None, "data")
    for part in ("val", "test"):
        draw(root / "zerowaste-v2-splits" / part, 2, 5, "sem_seg", "data")
    return root


@pytest.fixture(scope="session")
def camvid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("camvid")
    for part in ("day", "dusk_train", "dusk_test"):
        draw(root / part, 4, 12, "labels", "images")
    (root / "lite0.pth").touch()
    return root


Opened = Callable[..., tuple[list[str], list[Stage]]]


@pytest.fixture
def problems(toolbox: Toolbox, tmp_path: Path) -> Opened:
    """What is wrong with a recipe, and its stages."""

    def find(name: str | Path, *overrides: str) -> tuple[list[str], list[Stage]]:
        recipe = load_recipe(name, list(overrides))
        stages = expand(recipe, toolbox)
        return check(recipe, stages, toolbox, GPUS, tmp_path / "work"), stages

    return find


@pytest.mark.parametrize("trial", [[], [VISDA_TRIAL]])
def test_waste_segmentation_is_sound(visda: Path, problems: Opened, trial: list[str]) -> None:
    found, stages = problems("waste_segmentation_uda", f"data={visda}", *trial)
    assert found == []
    by_name = {stage.name: stage for stage in stages}
    if not trial:
        adapt, training = by_name["adapt"].body, by_name["self_training[variant=c]"].body
        assert (adapt["model"], adapt["iterations"], training["iterations"]) == (
            "convnext_large.fb_in22k",
            40000,
            10000,
        )
        assert training["augment"]["grid_shuffle"] == {"prob": 0.5, "cells": 3}
        assert training["augment"]["cat_max_ratio"] == 0.75
        assert adapt["optimizer"]["lr"] == training["optimizer"]["lr"] == 6e-5


@pytest.mark.parametrize("trial", [[], DUSK_TRIAL])
def test_the_small_twin_is_sound(camvid: Path, problems: Opened, trial: list[str]) -> None:
    found, stages = problems("camvid_dusk", f"data={camvid}", f"weights={camvid}/lite0.pth", *trial)
    assert found == []
    seeing = {stage.template for stage in stages if "test_set" in stage.needs}
    assert seeing == {stage.template for stage in stages if stage.kind.name == "segment_evaluate"}


def test_first_steps_of_waste_segmentation(visda: Path, tmp_path: Path) -> None:
    fasttrain(
        *("recipe", "run", "waste_segmentation_uda", "--out", tmp_path, "--until", "adapt"),
        *("--set", f"data={visda}", "--set", VISDA_TRIAL),
    )
    stages = tmp_path / "stages"
    records = [json.loads(line) for line in (stages / "adapt/run/metrics.jsonl").read_text().splitlines()]
    assert len(records) == 2 and {"loss_source", "loss_mix", "confident"} <= records[0].keys()
    assert (stages / "adapt/run/teacher.safetensors").exists()
    with BetonReader(stages / "target_set/data.beton") as reader:
        assert reader.masks is None


@pytest.mark.thorough
def test_the_small_twin_to_its_end(camvid: Path, tmp_path: Path) -> None:
    how = ["--out", tmp_path, *(word for entry in (f"data={camvid}", *DUSK_TRIAL) for word in ("--set", entry))]
    done = fasttrain("recipe", "run", "camvid_dusk", *how)
    measured = {name: result for name, result in done["results"].items() if "_miou" in name}
    assert len(measured) == 7 and all(0 <= result["miou"] <= 1 for result in measured.values())
    page = Path(fasttrain("recipe", "report", "camvid_dusk", *how)["html"]).read_text()
    assert "soup_miou" in page and page.count("data:image/jpeg") == 2


LEAKS: dict[str, tuple[dict[str, Any], str]] = {
    "training": ({"kind": "segment_train", "data": "${test_set}"}, "holds the masks of a target set"),
    "validation": ({"kind": "segment_train", "data": "${train_set}", "val": "${test_set}"}, "holds the masks"),
    "adaptation": ({"kind": "segment_adapt", "data": "${train_set}", "target": "${test_set}"}, "holds the masks"),
    "building": ({"kind": "build", "sources": "${test_set}"}, "holds the masks"),
    "labels": ({"kind": "build", "sources": "IMAGES", "masks": "LABELS"}, "a target set, whose labels it must not see"),
}


@pytest.mark.parametrize("case", LEAKS)
def test_masks_of_a_target_set_are_for_evaluation_alone(
    case: str, camvid: Path, problems: Opened, tmp_path: Path
) -> None:
    stage, told = LEAKS[case]
    images, labels = camvid / "dusk_test/images", camvid / "dusk_test/labels"
    stage = {key: {"IMAGES": str(images), "LABELS": str(labels)}.get(str(value), value) for key, value in stage.items()}
    values: dict[str, Any] = {
        "name": "leak",
        "files": {"labels": {"path": str(labels), "type": "masks", "target": True}},
        "stages": {
            "train_set": {"kind": "build", "sources": f"{camvid}/day/images", "masks": f"{camvid}/day/labels"},
            "test_set": {"kind": "build", "sources": str(images), "masks": "${labels}"},
            "it": stage,
        },
    }
    found, _ = problems(write_recipe(tmp_path / "leak.yaml", values))
    assert len(found) == 1 and told in found[0], found
    del values["stages"]["it"]
    assert problems(write_recipe(tmp_path / "leak.yaml", values))[0] == []
