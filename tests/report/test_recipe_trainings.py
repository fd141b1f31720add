"""What the page about a recipe says of trainings that go on with others: masks of objects, a co-teacher, versions."""

from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from fasttrain.report.recipe.measured import measures
from fasttrain.report.recipe.measured_trainings import training_gains
from fasttrain.report.recipe.page import recipe_figures, write_recipe_page
from fasttrain.report.recipe.views import RecipeView, StageView
from tests.report.test_page import Tags
from tests.report.test_recipe import measured, stage

EPOCHS = {"epochs": 5}


def predicted(name: str, of: str, output: str, top1: float) -> list[StageView]:
    table = f"predict_{name}"
    made = [("checkpoint", of, output), ("data", "target", "dataset")]
    given = {"checkpoint": f"${{{of}.{output}}}", "data": "${target.dataset}"}
    return [stage(table, "predict", made, settings=given), measured(f"accuracy_{name}", table, top1)]


@pytest.fixture
def view(tmp_path: Path) -> RecipeView:
    """A classifier, the masks it leads to, stage A that mixes by them, B with a co-teacher, two versions of B."""
    Image.new("RGB", (60, 30), (200, 0, 0)).save(tmp_path / "masks_pictures.png")
    mixed = {**EPOCHS, "augment": {"spatial": {"prob": 0.5}}}
    made = {"made": 40, "empty": 2, "object_share": 0.25}
    stages = [
        stage("bare", "build", []),
        stage("target", "build", []),
        stage("classifier", "train", [("data", "bare", "dataset")], settings=EPOCHS),
        stage("maps", "objects_train", [("weights", "classifier", "checkpoint")]),
        stage(
            "masks",
            "objects_masks",
            [("checkpoint", "maps", "checkpoint")],
            outputs={"pictures": tmp_path / "masks_pictures.png"},
            result=made,
        ),
        stage("masked", "build", [("masks", "masks", "masks")]),
        stage("a", "train", [("data", "masked", "dataset")], settings=mixed),
        stage(
            "b",
            "train",
            [("data", "masked", "dataset"), ("weights", "a", "checkpoint")],
            settings={**mixed, "co_teacher": {"weight": 2, "keep": "teacher"}},
        ),
        *predicted("classifier", "classifier", "checkpoint", 0.5),
        *predicted("a", "a", "checkpoint", 0.6),
        *predicted("a_best", "a", "best", 0.9),
        *predicted("student", "b", "student", 0.65),
        *predicted("b", "b", "checkpoint", 0.7),
    ]
    for ratio in ("0.3", "0.6"):
        inputs = [("data", "masked", "dataset"), ("weights", "b", "checkpoint")]
        stages.append(stage(f"c[ratio={ratio}]", "train", inputs, settings=mixed))
    return RecipeView("contexts", "", [*stages, *predicted("c", "c[ratio=0.6]", "checkpoint", 0.72)])


def test_each_training_is_compared_with_what_it_goes_on_with(view: RecipeView) -> None:
    found = training_gains(view, measures(view))
    assert [(one.step, one.stage, one.against, one.note, round(one.gain, 6)) for one in found] == [
        ("mixing by masks of objects", "predict_a", "predict_classifier", "", 0.1),
        ("mixing by masks of objects", "predict_a_best", "predict_classifier", "", 0.4),
        ("co-teacher", "predict_student", "predict_a", "student", 0.05),
        ("co-teacher", "predict_b", "predict_a", "teacher", 0.1),
        ("further training", "predict_c", "predict_b", "", 0.02),
    ]
    assert recipe_figures(view)["gains"][0]["step"] == found[0].step


def test_what_differs_besides_the_mixing_is_said(view: RecipeView) -> None:
    stages = [
        replace(one, record={**one.record, "settings": {"epochs": 3}}) if one.name == "classifier" else one
        for one in view.stages
    ]
    [mixing, *_] = training_gains(replace(view, stages=stages), measures(view))
    assert mixing.note == "differs in epochs as well"


def test_scores_that_were_made_in_another_way_are_not_compared(view: RecipeView) -> None:
    stages = [
        replace(one, record={**one.record, "settings": {**one.record["settings"], "tta": "hflip"}})
        if one.name == "predict_b"
        else one
        for one in view.stages
    ]
    changed = replace(view, stages=stages)
    steps = [one.stage for one in training_gains(changed, measures(changed))]
    assert steps == ["predict_a", "predict_a_best", "predict_student"]


def test_a_later_round_of_the_same_training_is_another_matter(view: RecipeView) -> None:
    stages = [replace(one, template="a") if one.name == "b" else one for one in view.stages]
    changed = replace(view, stages=stages)
    assert "co-teacher" not in {one.step for one in training_gains(changed, measures(changed))}


def test_the_page_shows_the_masks_over_pictures(view: RecipeView, tmp_path: Path) -> None:
    tags = Tags(write_recipe_page(view, tmp_path / "report.html").read_text(encoding="utf-8"))
    told = (
        "masks: samples, each beside itself under the mask of its objects; of 40 masks 2 are empty, and objects take "
        "25.0% of an image on average."
    )
    assert told in tags.text
    assert len([tag for tag, attributes in tags.tags if tag == "img" and "jpeg" in (attributes["src"] or "")]) == 1
