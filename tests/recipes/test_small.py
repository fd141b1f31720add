"""The small recipes: sound, leaving out any domain, and run to their end with a tiny model, report and all."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from fasttrain.beton_build.reader import BetonReader
from fasttrain.recipes.check import check
from fasttrain.recipes.expand import expand
from fasttrain.recipes.graph import Stage
from fasttrain.recipes.load import load_recipe
from fasttrain.recipes.resources import Machine
from fasttrain.recipes.toolbox import Toolbox

from .conftest import fasttrain

DOMAINS = ("art_painting", "cartoon", "photo", "sketch")
CLASSES = ("cat", "dog", "owl")


def draw(folder: Path, each: int, seed: int) -> None:
    """Noise over a colour for each class, in folders of classes."""
    generator = np.random.default_rng(seed)
    for number, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True)
        for index in range(each):
            pixels = generator.integers(0, 120, (32, 32, 3), np.uint8)
            pixels[..., number] += 120
            Image.fromarray(pixels).save(folder / name / f"{index}.jpg", quality=90)


@pytest.fixture(scope="module")
def pacs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pacs")
    for number, domain in enumerate(DOMAINS):
        draw(root / domain, 4, number)
    return root


@pytest.fixture(scope="module")
def cifar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("cifar")
    draw(root / "train", 20, 0)
    draw(root / "test", 6, 1)
    return root


def sound(name: str, toolbox: Toolbox, folder: Path, *overrides: str) -> dict[str, Stage]:
    recipe = load_recipe(name, [*overrides])
    stages = expand(recipe, toolbox)
    assert check(recipe, stages, toolbox, Machine((), 2), folder) == []
    return {stage.name: stage for stage in stages}


@pytest.mark.parametrize("target", DOMAINS)
def test_any_domain_of_pacs_can_be_left_out(pacs: Path, toolbox: Toolbox, tmp_path: Path, target: str) -> None:
    (tmp_path / "w.pth").touch()
    weights = [f"weights_{name}={tmp_path}/w.pth" for name in ("lite0", "lite1")]
    stages = sound("pacs_rounds", toolbox, tmp_path / "work", f"data={pacs}", f"target={target}", *weights)
    others = [Path(source).name for source in stages["train_set"].body["sources"]]
    assert sorted([*others, target]) == list(DOMAINS)
    assert stages["target_set"].body["sources"].path == f"{pacs}/{target}"
    assert stages["train[model=lite0,round=1]"].body["model"] == "tf_efficientnet_lite0"


def test_contexts_of_pacs(pacs: Path, toolbox: Toolbox, tmp_path: Path) -> None:
    (tmp_path / "w.pth").touch()
    given = (f"data={pacs}", "target=photo", f"weights={tmp_path}/w.pth")
    stages = sound("pacs_context", toolbox, tmp_path / "work", *given)
    assert [Path(source).name for source in stages["photos"].body["sources"]] == ["art_painting", "cartoon", "sketch"]
    assert len(stages["vote"].body["tables"]) == len(stages["average"].body["tables"]) == 4
    alike = {"baseline": {"mixup"}, "stage_a": {"spatial", "spectral"}}
    augments = {name: {**stages[name].body["augment"]} for name in alike}
    for name, mixing in alike.items():
        assert mixing == {key for key in augments[name] if key not in ("scale", "hflip", "policy")}
    assert "weights" in stages["baseline"].body and "vflip" not in augments["stage_a"]
    assert all("target_set" not in stages[name].needs for name in ("baseline", "stage_a", "stage_b", "object_masks"))


@pytest.mark.parametrize("name", ["cifar10", "noisy_cifar10"])
def test_cifar10(name: str, cifar: Path, toolbox: Toolbox, tmp_path: Path) -> None:
    sound(name, toolbox, tmp_path / "work", f"data={cifar}")


def run(name: str, out: Path, *overrides: str) -> dict[str, Any]:
    return fasttrain("recipe", "run", name, "--out", out, "--jobs", 2, "--report", *sets_of(overrides))


def report(name: str, out: Path, *overrides: str) -> dict[str, Any]:
    return fasttrain("recipe", "report", name, "--out", out, *sets_of(overrides))


def sets_of(overrides: Sequence[str]) -> list[str]:
    return [word for override in overrides for word in ("--set", override)]


def settings(tmp_path: Path, **values: Any) -> Path:
    """Settings of a run, as a file."""
    path = tmp_path / "settings.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


@pytest.mark.thorough
def test_cifar10_to_its_end(cifar: Path, tmp_path: Path) -> None:
    plain = settings(tmp_path, model="test_resnet", size=32, batch_size=16, epochs=1, threads=1)
    done = run("cifar10", tmp_path / "work", f"data={cifar}", f"config={plain}")
    assert done["results"]["ensemble_accuracy"]["samples"] == 18
    told = report("cifar10", tmp_path / "work", f"data={cifar}", f"config={plain}")
    assert {one["stage"] for one in told["accuracies"]} == {"predict[seed=0]", "predict_shifted[seed=0]", "ensemble"}
    assert told["stages"] == {"done": 10}
    assert "Worst classes" in Path(told["html"]).read_text(encoding="utf-8")


@pytest.mark.thorough
def test_noisy_cifar10_to_its_end(cifar: Path, tmp_path: Path) -> None:
    plain = settings(tmp_path, model="test_resnet", size=32, threads=1)
    sizes = ("most=20", "imbalance=2", "batch_size=8", "epochs=3", "judge_epochs=3", "threshold=0", "at_most=3")
    sets = (f"data={cifar}", f"config={plain}", "optimizer={}", *sizes)
    done = run("noisy_cifar10", tmp_path / "work", *sets)
    assert done["results"]["noisy_labels"]["per_class"].keys() == {*CLASSES}
    steps = {one["step"] for one in report("noisy_cifar10", tmp_path / "work", *sets)["gains"]}
    assert steps == {"ensemble", "soup", "logit adjustment", "re-distribution", "pseudo-labels"}
    truth = (tmp_path / "work/stages/noisy_labels/truth.csv").read_bytes()
    assert truth != (tmp_path / "work/stages/noisy_labels/labels.csv").read_bytes()


@pytest.mark.thorough
def test_pacs_to_its_end(pacs: Path, tmp_path: Path) -> None:
    models = "models=[{name: a, settings: {model: test_resnet}}, {name: b, settings: {model: test_efficientnet}}]"
    sets = (f"data={pacs}", models, "size=32", "epochs=1", "threshold=0.1", "trial={threads: 1}")
    done = run("pacs_rounds", tmp_path / "work", *sets)
    assert json.loads((tmp_path / "work/stages/accuracy,round=3/result.json").read_text())["samples"] == 12
    assert Path(done["report"]).exists()


@pytest.mark.thorough
def test_contexts_of_pacs_to_their_end(pacs: Path, tmp_path: Path) -> None:
    tiny = ("start={model: test_resnet}", "model=test_resnet", "size=32", "object_size=64", "trial={threads: 1}")
    short = ("epochs=1", "object_epochs=1", "epochs_c=1", "ramp_epochs=0", "ratios=[0.5, 1.0]")
    sets = (f"data={pacs}", *tiny, *short)
    work = tmp_path / "work"
    done = run("pacs_context", work, *sets)
    assert done["results"]["accuracy"]["samples"] == 12
    assert len(list((work / "stages/object_masks/masks").rglob("*.png"))) == 36
    with (
        BetonReader(work / "stages/bare_set/val.beton") as bare,
        BetonReader(work / "stages/train_set/val.beton") as val,
    ):
        assert list(bare.ids) == list(val.ids) and val.masks is not None
    assert len(json.loads((work / "stages/prediction/submission.json").read_text())) == 12
    told = report("pacs_context", work, *sets)
    steps = [(one["step"], one["stage"], one["against"]) for one in told["gains"]]
    assert steps[:3] == [
        ("mixing by masks of objects", "predict_a", "predict_baseline"),
        ("co-teacher", "predict_student", "predict_a"),
        ("co-teacher", "predict_b", "predict_a"),
    ]
    assert {step for step, _, _ in steps[3:]} == {"further training", "ensemble", "re-distribution"}
    assert told["gains"][0]["note"] == ""
    assert "under the mask of its objects" in Path(told["html"]).read_text(encoding="utf-8")
