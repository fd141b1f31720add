"""The page about a recipe of segmentation: mIoU, what each step added over the source alone, curves, pictures."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fasttrain.report.pictures import picture_of_file
from fasttrain.report.recipe.measured_masks import mask_gains, mask_measures
from fasttrain.report.recipe.page import recipe_figures, write_recipe_page
from fasttrain.report.recipe.views import RecipeView, StageView
from tests.report.test_page import Tags
from tests.report.test_recipe import measured, stage

MIOU = {"source_only": 0.30, "adapt": 0.40, "adapt.teacher": 0.42, "train[v=a]": 0.45, "train[v=b]": 0.35, "soup": 0.5}
DATA = ("data", "day", "dataset")


def evaluated(name: str, of: str, miou: float, on: str = "test", **settings: Any) -> StageView:
    source, _, output = of.partition(".")
    result = {"samples": 4, "miou": miou, "aacc": 0.8, "classes": ["sky", "car"], "iou": [None, miou]}
    inputs = [("checkpoint", source, output or "checkpoint"), ("data", on, "dataset")]
    return stage(name, "segment_evaluate", inputs, result=result, settings=settings)


def run_folder(root: Path, name: str, **figures: float) -> dict[str, Path]:
    run = root / name / "run"
    run.mkdir(parents=True)
    lines = [{"epoch": epoch, "train_loss": 2.0 - epoch, "images_per_s": 9.0, **figures} for epoch in range(2)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return {"checkpoint": run / "last.safetensors", "run": run}


def picture(path: Path, colour: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (3400, 100), (colour, 0, 0)).save(path)


@pytest.fixture(scope="module")
def view(tmp_path_factory: pytest.TempPathFactory) -> RecipeView:
    """Source alone, adaptation, two self-trainings on its pseudo-labels, their soup; all measured on `test`."""
    root = tmp_path_factory.mktemp("masks")
    adapted = run_folder(root, "adapt", loss_mix=0.25, confident=0.5)
    for number, colour in enumerate((50, 100, 150)):
        picture(adapted["run"] / f"pictures/step_{100 * number:06}.png", colour)
    for name in ("grid", "000_a", "001_b"):
        picture(root / f"shown/{name}.png", 200)
    learned = {"settings": {"iterations": 400, "seed": 0}, "result": {"miou": 0.77, "epochs": 2}}
    stages = [
        *(stage(name, "build", []) for name in ("day", "dusk", "test")),
        stage("source_only", "segment_train", [DATA], outputs=run_folder(root, "source_only"), **learned),
        stage("adapt", "segment_adapt", [DATA, ("target", "dusk", "dataset")], outputs=adapted, **learned),
        stage("predict", "segment_predict", [("checkpoint", "adapt", "checkpoint"), ("data", "dusk", "dataset")]),
        stage("pseudo_set", "build", [("sources", "dusk", "dataset"), ("masks", "predict", "masks")]),
        stage("show", "masks_show", [("data", "pseudo_set", "dataset")], outputs={"pictures": root / "shown"}),
    ]
    for variant in "ab":
        inputs = [("data", "pseudo_set", "dataset"), ("weights", "adapt", "checkpoint")]
        stages.append(stage(f"train[v={variant}]", "segment_train", inputs, outputs=run_folder(root, variant)))
    members = [("checkpoints", name, "checkpoint") for name in ("adapt", "train[v=a]", "train[v=b]")]
    stages.append(stage("soup", "soup", members))
    stages += [evaluated(f"miou of {name}", name, value) for name, value in MIOU.items()]
    return RecipeView("masks", "", stages)


def added(view: RecipeView) -> dict[tuple[str, str, str], float]:
    found = mask_gains(view, mask_measures(view))
    assert {one.figure for one in found} <= {"mIoU"}
    return {(one.step, one.stage, one.against): round(100 * one.gain, 6) for one in found}


def test_what_each_step_added_over_the_source_alone(view: RecipeView) -> None:
    assert added(view) == {
        ("adaptation", "adapt", "source_only"): 10,
        ("adaptation", "adapt.teacher", "source_only"): 12,
        ("self-training", "train[v=a]", "source_only"): 15,
        ("self-training", "train[v=a]", "adapt"): 5,
        ("self-training", "train[v=b]", "source_only"): 5,
        ("self-training", "train[v=b]", "adapt"): -5,
        ("soup", "soup", "source_only"): 20,
        ("soup", "soup", "mean of 3 members"): 10,
        ("soup", "soup", "train[v=a]"): 5,
    }


@pytest.mark.parametrize("how", [{"on": "dusk"}, {"hflip": True}])
def test_what_was_measured_otherwise_is_not_compared(view: RecipeView, how: dict[str, Any]) -> None:
    other = evaluated("miou of source_only", "source_only", 0.3, **how)
    found = added(replace(view, stages=[other if one.name == other.name else one for one in view.stages]))
    assert found
    assert "source_only" not in {against for _, _, against in found}
    same = evaluated("miou of source_only", "source_only", 0.3, scales="1", mode="whole", batch_size=2)  # defaults
    assert added(replace(view, stages=[same if one.name == same.name else one for one in view.stages])) == added(view)


def test_a_model_of_other_data_or_another_loop_is_no_source_alone(view: RecipeView) -> None:
    others = [
        stage("oracle", "segment_train", [("data", "test", "dataset")]),
        evaluated("miou of oracle", "oracle", 0.9),
        stage("again[seed=1]", "segment_train", [DATA]),
        evaluated("miou of again[seed=1]", "again[seed=1]", 0.2),
        stage("adapt2[seed=2]", "segment_adapt", [DATA]),
        evaluated("miou of adapt2[seed=2]", "adapt2[seed=2]", 0.6),
    ]
    found = added(replace(view, stages=[*view.stages, *others]))
    assert "oracle" not in {against for _, _, against in found}
    assert ("adaptation", "adapt2[seed=2]", "source_only") in found
    assert ("adaptation", "adapt2[seed=2]", "again[seed=1]") not in found


def test_a_comparison_says_which_other_settings_differ(view: RecipeView) -> None:
    source = view.by_name["source_only"]
    longer = replace(source, record={**source.record, "settings": {"iterations": 800, "seed": 0}})
    changed = replace(view, stages=[longer if one is source else one for one in view.stages])
    notes = {one.note for one in mask_gains(changed, mask_measures(changed)) if one.step == "adaptation"}
    assert notes == {"differs in iterations as well"}


def test_the_page_names_the_figure_and_shows_the_first_and_last_pictures(view: RecipeView, tmp_path: Path) -> None:
    tags = Tags(write_recipe_page(view, tmp_path / "report.html").read_text(encoding="utf-8"))
    for told in (
        "best mIoU on test.dataset",
        "in percentage points of mIoU",
        "adapt.teacher",
        "validation mIoU",
        "Intersection over union of each class, on test.dataset",
        "loss mix",
        "adapt, step 1:",
        "adapt, step 201:",
    ):
        assert told in tags.text, told
    for absent in ("top-1", "adapt, step 101:", "cannot be shown", "Worst classes"):
        assert absent not in tags.text, absent
    sources = [attributes["src"] or "" for tag, attributes in tags.tags if tag == "img"]
    assert sum("jpeg" in source for source in sources) == 2 + 1
    figures = recipe_figures(view)
    assert {one["name"]: one["miou"] for one in figures["masks"]} == MIOU
    assert [one["val_miou"] for one in figures["trainings"]] == [0.77, 0.77, None, None]


def test_a_recipe_may_hold_both_figures_and_pre_training(view: RecipeView, tmp_path: Path) -> None:
    both = [
        *view.stages,
        stage("target", "build", []),
        stage("predict_classes", "predict", []),
        measured("accuracy", "predict_classes", 0.625),
        stage("encoder", "pretrain", [], outputs=run_folder(tmp_path, "encoder", feature_std=0.031)),
    ]
    html = write_recipe_page(replace(view, stages=both), tmp_path / "report.html").read_text(encoding="utf-8")
    for told in ("best top-1 by target.labels", "best mIoU on test.dataset", "62.5%", "50.0%", "feature std", "0.031"):
        assert told in html, told


def test_a_picture_that_is_damaged_costs_itself_alone(view: RecipeView, tmp_path: Path) -> None:
    (tmp_path / "grid.png").write_bytes(b"no picture")
    broken = [replace(one, outputs={"pictures": tmp_path}) if one.name == "show" else one for one in view.stages]
    html = write_recipe_page(replace(view, stages=broken), tmp_path / "report.html").read_text(encoding="utf-8")
    assert "It cannot be shown" in html
    assert html.count("data:image/jpeg") == 2


def test_pictures_of_files_are_scaled_down_and_never_up(tmp_path: Path) -> None:
    for size, expected in (((3000, 100), (1000, 33)), ((60, 4000), (30, 2000)), ((20, 10), (20, 10))):
        Image.fromarray(np.zeros((size[1], size[0]), np.uint8)).save(tmp_path / "a.png")
        (tmp_path / "a.jpeg").write_bytes(picture_of_file(tmp_path / "a.png", 1000, 2000).data)
        with Image.open(tmp_path / "a.jpeg") as image:
            assert (image.size, image.mode) == (expected, "RGB")
