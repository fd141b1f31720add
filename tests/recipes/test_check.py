"""Wrong recipes are found before anything is spent, and so is every way to labels that must not be seen."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from fasttrain.recipes.check import check
from fasttrain.recipes.expand import expand
from fasttrain.recipes.load import load_recipe
from fasttrain.recipes.resources import Machine
from fasttrain.recipes.toolbox import Toolbox

from .conftest import fasttrain, write_recipe

CPU = Machine((), 2)
TWO_GPUS = Machine(("0", "1"), 8)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Folders of classes: ``train`` and ``test`` of ant and bee, ``other`` of ant and wasp."""
    root = tmp_path / "images"
    for name, classes in (("train", "ant bee"), ("test", "ant bee"), ("other", "ant wasp")):
        for index, label in enumerate(classes.split()):
            (root / name / label).mkdir(parents=True)
            for number in range(4):
                Image.new("RGB", (16, 16), (100 * index, 10 * number, 0)).save(root / name / label / f"{number}.jpg")
    return root


@pytest.fixture
def system(images: Path, tmp_path: Path) -> dict[str, Any]:
    """A recipe of images, models and tables that is right."""
    return {
        "name": "system",
        "vars": {"root": str(images)},
        "files": {"test_images": {"path": "${root}/test", "target": True}},
        "stages": {
            "train_set": {"kind": "build", "sources": "${root}/train", "val_fraction": 0.5},
            "test_set": {"kind": "build", "sources": "${test_images}"},
            "train": {"kind": "train", "data": "${train_set}", "val": "${train_set.val}", "model": "resnet18"},
            "predict": {"kind": "predict", "checkpoint": "${train}", "data": "${test_set}", "tta": "hflip"},
            "ensemble": {"kind": "ensemble", "tables": ["${predict}"]},
            "pseudo": {"kind": "pseudo", "table": "${ensemble}", "threshold": 0.5},
            "pseudo_set": {"kind": "build", "sources": "${test_set}", "labels": "${pseudo}", "ids": "${pseudo}"},
            "accuracy": {"kind": "evaluate", "table": "${ensemble}", "labels": "${test_set.labels}"},
        },
    }


def problems_of(values: dict[str, Any], tmp_path: Path, toolbox: Toolbox, machine: Machine = CPU) -> list[str]:
    recipe = load_recipe(write_recipe(tmp_path / "recipe.yaml", values))
    return check(recipe, expand(recipe, toolbox), toolbox, machine, tmp_path / "work")


def changed(system: dict[str, Any], stage: str, **keys: Any) -> dict[str, Any]:
    """The recipe with keys of a stage replaced; None takes one away."""
    stages = {**system["stages"], stage: {**system["stages"].get(stage, {}), **keys}}
    return yaml.safe_load(yaml.safe_dump({**system, "stages": stages}))


def test_a_right_recipe_has_no_problems(system, tmp_path, toolbox):
    assert problems_of(system, tmp_path, toolbox) == []


@pytest.mark.parametrize(
    ("stage", "keys", "message"),
    [
        ("pseudo", {"treshold": 1}, "did you mean 'threshold'"),
        ("pseudo", {"threshold": "high"}, "valid number"),
        ("predict", {"tta": "vflip"}, "vflip"),
        ("predict", {"out": "x.arrow"}, "out is set by the runner"),
        ("predict", {"checkpoint": None}, "checkpoint is missing"),
        ("predict", {"checkpoint": "${train_set}"}, "is of type dataset, not checkpoint or weights"),
        ("predict", {"checkpoint": "${train.averaged}"}, "with its settings train writes no averaged"),
        ("predict", {"data": "nowhere.beton"}, "nowhere.beton: no such file or folder"),
        ("predict", {"data": ["${test_set}", "${train_set}"]}, "takes one file, not 2"),
        ("predict", {"batch_size": "${test_set}"}, "batch_size takes no file"),
        ("train", {"optimizer": {"lrr": 0.1}}, "did you mean 'optimizer.lr'"),
        ("train", {"epochs": 0}, "epochs"),
        ("train", {"model": "resnet81"}, "resnet18"),
        ("train", {"optimizer": {"name": "adamv"}}, "did you mean 'adam'"),
        ("train", {"config": "cifar11"}, "cifar10"),
        ("train", {"gpus": 4}, "asks for 4 GPUs, and there are 2 there"),
        ("train", {"nodes": 2}, "recipe slurm"),
        ("train", {"gpus": 2, "nproc": 3}, "there is one process a GPU"),
        ("ensemble", {"nproc": 2}, "is one process"),
        ("ensemble", {"tables": []}, "tables is empty"),
        ("submission", {"kind": "submit", "table": "${accuracy}"}, "figures, which nothing may depend on"),
    ],
)
def test_each_mistake_is_named(system, tmp_path, toolbox, stage, keys, message):
    found = problems_of(changed(system, stage, **keys), tmp_path, toolbox, TWO_GPUS)
    assert len(found) == 1, found
    assert found[0].startswith(f"stage {stage}: ")
    assert message in found[0]


@pytest.mark.parametrize(
    ("stage", "keys", "message"),
    [
        ("train", {"val": "${root}/other"}, "the class 'wasp' of"),
        ("train", {"data": ["${train_set}", "${root}/other"]}, "have different classes ('bee' is in one alone)"),
        ("predict", {"data": "${root}/other"}, "the class 'wasp'"),
    ],
)
def test_classes_that_do_not_fit(system, tmp_path, toolbox, stage, keys, message):
    found = problems_of(changed(system, stage, **keys), tmp_path, toolbox)
    assert len(found) == 1
    assert message in found[0]


@pytest.mark.parametrize(
    ("stage", "keys", "message"),
    [
        ("train", {"val": "${test_images}"}, "whose labels it must not see"),
        ("train", {"extra_val": {"test": "${test_images}"}}, "whose labels it must not see"),
        ("train", {"val": "${root}/test"}, "lies in"),
        ("train_set", {"sources": "${root}"}, "holds or lies in"),
        ("train_set", {"sources": ["${root}/train", "${test_images}"]}, "is built by itself"),
        ("test_set", {"labels": "${pseudo}"}, "built without any"),
        ("pseudo_set", {"labels": "${test_set.labels}"}, "which `evaluate` stages alone may read"),
        ("pseudo_set", {"ids": "${test_set.labels}"}, "which `evaluate` stages alone may read"),
        ("predict", {"data": "${test_images}"}, "whose labels it must not see"),
    ],
)
def test_labels_of_a_target_set_are_for_evaluation_alone(system, tmp_path, toolbox, stage, keys, message):
    values = changed(system, stage, **keys)
    if (stage, keys.get("labels")) == ("test_set", "${pseudo}"):
        values["stages"]["pseudo"]["table"] = "t.arrow"
        (tmp_path / "t.arrow").touch()
    found = [problem for problem in problems_of(values, tmp_path, toolbox) if "t.arrow" not in problem]
    assert any(message in problem for problem in found), found


def test_lists_of_images_are_no_class_names(system, images, tmp_path, toolbox):
    (images / "train.txt").write_text("train/ant/0.jpg ant\ntrain/bee/0.jpg bee\n")
    (images / "val.txt").write_text("train/ant/1.jpg ant\ntrain/bee/1.jpg bee\n")
    values = changed(system, "train_set", sources="${root}/train.txt", val_fraction=None)
    values["stages"]["train"]["val"] = "${root}/val.txt"
    assert problems_of(values, tmp_path, toolbox) == []


def test_a_model_may_be_evaluated_on_a_target_set(system, tmp_path, toolbox):
    stages = {"measured": {"kind": "evaluate_model", "checkpoint": "${train}", "data": "${test_images}"}}
    assert problems_of({**system, "stages": {**system["stages"], **stages}}, tmp_path, toolbox) == []


def test_a_target_that_nothing_uses_is_a_mistake(system, tmp_path, toolbox):
    files = {**system["files"], "unused": {"path": "${root}/other", "target": True}}
    assert problems_of({**system, "files": files}, tmp_path, toolbox) == [
        "file unused: it is marked as target, but no stage uses it"
    ]


def test_the_command_fails_with_all_problems_and_spends_nothing(recipe, tmp_path):
    out = tmp_path / "work"
    wrong = ("--set", "stages.pseudo.treshold=1", "--set", "stages.submission.table=nowhere.arrow")
    for command in ("check", "run"):
        failed = fasttrain("recipe", command, recipe, "--out", out, *wrong, code=1)
        assert "did you mean 'threshold'" in failed["said"]
        assert "nowhere.arrow: no such file" in failed["said"]
    assert not out.exists()
    right = fasttrain("recipe", "check", recipe, "--out", out)
    assert right["ok"] is True
    assert right["estimate"]["stages"] == right["stages"] == 7
    assert len(right["estimate"]["unknown"]) == 7


def test_the_cost_is_estimated_from_earlier_results(recipe, tmp_path):
    out = ("--out", tmp_path / "work")
    fasttrain("recipe", "run", recipe, *out, "--until", "redistribute")
    cost = fasttrain("recipe", "check", recipe, *out)["estimate"]
    assert cost["stages"] == 3
    assert set(cost["unknown"]) == {"pseudo", "accuracy", "submission"}
