"""The page about a recipe: what each step added by the figures of `evaluate` stages, changed labels, and Chromium."""

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fasttrain.beton_build.build import build
from fasttrain.beton_build.options import BuildOptions
from fasttrain.beton_build.sources import read_source
from fasttrain.report.recipe.graph import graph_figure
from fasttrain.report.recipe.measured import gains, measures
from fasttrain.report.recipe.page import recipe_figures, write_recipe_page
from fasttrain.report.recipe.views import RecipeView, StageView
from fasttrain.scores.table import ScoreTable
from tests.report.test_figures import HOSTILE, assert_plain_svg
from tests.report.test_page import Tags

CLASSES = ["ant", "bee"]
SAMPLES = 12
ROUNDS = ("1", "2")


def stage(name: str, kind: str, inputs: list[tuple[str, str, str]], **rest: Any) -> StageView:
    template, _, axes = name.partition("[")
    pairs = dict(pair.split("=") for pair in axes.rstrip("]").split(",")) if axes else {}
    record = {
        "key": "0" * 32,
        "seconds": 61.5,
        "attempts": 1,
        "finished": "2024-01-01T00:00:00",
        "command": ["fasttrain", kind],
        "settings": rest.pop("settings", {}),
        "result": rest.pop("result", {}),
        "inputs": {f"${{{one}.{output}}}": "ab" * 16 for _, one, output in inputs},
        "outputs": {
            key: {"file": path.name, "hash": "cd" * 16, "bytes": 5} for key, path in rest.get("outputs", {}).items()
        },
    }
    return StageView(name, template, pairs, kind, rest.pop("state", "done"), inputs, record=record, **rest)


def measured(name: str, of: str, top1: float, assigned: float | None = None) -> StageView:
    result: dict[str, Any] = {"samples": SAMPLES, "top1": top1, "macro_f1": top1}
    if assigned is not None:
        result |= {"top1_assigned": assigned, "macro_f1_assigned": assigned}
        counted = {"samples": 6, "predicted": 7, "f1": 0.5}
        result["per_class"] = [
            {"class": "ant", "accuracy": 0.9, **counted},
            {"class": "bee", "accuracy": 0.2, **counted},
        ]
    return stage(name, "evaluate", [("table", of, "table"), ("labels", "target", "labels")], result=result)


@pytest.fixture(scope="module")
def view(tmp_path_factory: pytest.TempPathFactory) -> RecipeView:
    """Two models, two rounds, an ensemble and a re-distribution in each."""
    root = tmp_path_factory.mktemp("recipe")
    (root / "images").mkdir()
    for number in range(SAMPLES):
        Image.new("RGB", (40, 30), (20 * number, 90, 200 - 15 * number)).save(root / "images" / f"{number}.png")
    build(read_source([root / "images"]), root / "target.beton", BuildOptions(workers=1))
    ids = [f"{number}.png" for number in range(SAMPLES)]
    stages = [stage("target", "build", [], outputs={"dataset": root / "target.beton", "labels": root / "labels.csv"})]
    for number, label in enumerate(ROUNDS):
        scores = np.random.default_rng(number).normal(size=(SAMPLES, 2)).astype(np.float32)
        table = ScoreTable(ids, scores, CLASSES, "logits")
        given = table.argmax()
        given[:3] = 1 - given[:3]
        table.with_assigned(given, np.full(SAMPLES, 0.9, np.float32), {}).write(root / f"{label}.arrow")
        pseudo = root / f"pseudo{label}.csv"
        lines = [f"{name},{CLASSES[of]},0.9,x,{label}\n" for name, of in zip(ids, given.tolist(), strict=True)]
        pseudo.write_text("id,label,confidence,source,round\n" + "".join(lines[: SAMPLES - 1 - number]))
        taught = [("data", "pseudo[round=1]", "labels")] if number else []
        for model in "ab":
            axes = f"[model={model},round={label}]"
            stages += [
                stage(f"train{axes}", "train", taught, result={"top1": 0.8, "images_per_s": 50.0, "epochs": 2}),
                stage(
                    f"predict{axes}",
                    "predict",
                    [("checkpoint", f"train{axes}", "checkpoint"), ("data", "target", "dataset")],
                ),
                measured(f"accuracy_of{axes}", f"predict{axes}", 0.5 + 0.1 * number + 0.05 * (model == "b")),
            ]
        members = [("tables", f"predict[model={model},round={label}]", "table") for model in "ab"]
        axes = f"[round={label}]"
        sent = {"samples": SAMPLES, "changed": 3, "count_min": 5, "count_max": 7, "converged": True}
        out = {"table": root / f"{label}.arrow"}
        kept = {"samples": SAMPLES, "kept": SAMPLES - 1 - number}
        stages += [
            stage(f"ensemble{axes}", "ensemble", members),
            measured(f"ensemble_accuracy{axes}", f"ensemble{axes}", 0.6 + 0.1 * number),
            stage(f"known{axes}", "redistribute", [("table", f"ensemble{axes}", "table")], outputs=out, result=sent),
            measured(f"accuracy{axes}", f"known{axes}", 0.6 + 0.1 * number, 0.75 + 0.1 * number),
            stage(
                f"guessed{axes}",
                "redistribute",
                [("table", f"ensemble{axes}", "table")],
                outputs=out,
                result=sent,
                settings={"prior": "estimate"},
            ),
            measured(f"guessed_accuracy{axes}", f"guessed{axes}", 0.6, 0.5),
            stage(
                f"pseudo{axes}", "pseudo", [("table", f"known{axes}", "table")], outputs={"labels": pseudo}, result=kept
            ),
        ]
    start = {"command": "fasttrain recipe run x", "packages": {"torch": "2.9"}}
    return RecipeView("tiny", "Two rounds.", stages, {"size": 64}, start)


def test_what_each_step_added(view: RecipeView) -> None:
    found = {(one.step, one.stage, one.against): one for one in gains(view, measures(view))}
    assert view.rounds == ("round", ["1", "2"])
    ensemble = found["ensemble", "ensemble[round=1]", "mean of 2 members"]
    assert (ensemble.before, ensemble.after) == pytest.approx((0.525, 0.6))
    assert found["ensemble", "ensemble[round=1]", "predict[model=b,round=1]"].gain == pytest.approx(0.05)
    known = found["re-distribution", "known[round=2]", "its argmax"]
    assert (known.gain, known.note) == (pytest.approx(0.15), "uniform prior: known")
    guessed = found["re-distribution", "guessed[round=2]", "its argmax"]
    assert (guessed.gain, guessed.note) == (pytest.approx(-0.1), "prior estimated from the scores: not known")
    assert found["pseudo-labels", "known[round=2]", "known[round=1]"].gain == pytest.approx(0.1)
    assert not [one for one in found.values() if one.stage.endswith("round=1]") and one.step == "pseudo-labels"]


def test_a_soup_and_an_adjustment_are_compared_with_what_they_are_made_of() -> None:
    stages = [
        stage("target", "build", []),
        stage("train", "train", []),
        stage("soup", "soup", [("run", "train", "run")]),
        stage("plain", "predict", [("checkpoint", "train", "checkpoint")]),
        stage("mixed", "predict", [("checkpoint", "soup", "checkpoint")]),
        stage("adjusted", "adjust", [("table", "mixed", "table")]),
        measured("a", "plain", 0.5),
        measured("b", "mixed", 0.6),
        measured("c", "adjusted", 0.8),
    ]
    found = gains(*(lambda view: (view, measures(view)))(RecipeView("x", "", stages)))
    assert [(one.step, one.stage, one.against, round(one.gain, 6)) for one in found] == [
        ("soup", "mixed", "plain", 0.1),
        ("logit adjustment", "adjusted", "mixed", 0.2),
    ]


def test_figures_by_other_labels_are_not_compared(view: RecipeView) -> None:
    stages = [
        replace(one, inputs=[one.inputs[0], ("labels", "other", "labels")])
        if one.name == "ensemble_accuracy[round=1]"
        else one
        for one in view.stages
    ]
    changed = replace(view, stages=[stage("other", "build", []), *stages])
    steps = [one.stage for one in gains(changed, measures(changed)) if one.step == "ensemble"]
    assert steps == ["ensemble[round=2]"] * 2


def test_the_page_shows_it_all_and_needs_nothing_else(view: RecipeView, tmp_path: Path) -> None:
    html = write_recipe_page(view, tmp_path / "report.html").read_text(encoding="utf-8")
    tags = Tags(html)
    assert not {tag for tag, _ in tags.tags} & {"script", "link", "iframe"}
    for told in (
        "uniform prior: known",
        "prior estimated from the scores: not known",
        "known[round=2]: 3 labels changed, from argmax to re-distributed; 3 of them.",
        "Pseudo-labels of each class.",
        "Of 2 classes, in known[round=2], as accuracy[round=2] measured it.",
        "predict[model=a, round=1]",
        "cdcdcdcdcdcd",
        "torch 2.9",
        "fasttrain recipe run x",
    ):
        assert told in tags.text, told
    differ = re.search(r"pseudo\[round=2\]: (\d+) labels differ from those of pseudo\[round=1\]", tags.text)
    assert differ is not None
    assert int(differ[1]) > 0
    pictures = [attributes for tag, attributes in tags.tags if tag == "img" and "jpeg" in (attributes["src"] or "")]
    assert len(pictures) == 3 + 3 + int(differ[1])
    assert "cannot be shown" not in tags.text


def test_what_is_not_done_counts_for_nothing_and_says_what_is_wrong(view: RecipeView, tmp_path: Path) -> None:
    stages = [
        replace(one, state="failed", said="fasttrain: no space") if one.name == "accuracy[round=2]" else one
        for one in view.stages
    ]
    broken = replace(view, stages=stages)
    assert max(one["final"] for one in recipe_figures(broken)["accuracies"]) == pytest.approx(0.75)
    assert recipe_figures(broken)["stages"] == {"done": len(stages) - 1, "failed": 1}
    assert (
        "accuracy[round=2], failed: fasttrain: no space" in write_recipe_page(broken, tmp_path / "a.html").read_text()
    )
    nothing = replace(view, stages=[replace(one, state="new") for one in view.stages])
    assert "No `evaluate` stage is done" in write_recipe_page(nothing, tmp_path / "b.html").read_text()
    assert recipe_figures(nothing)["seconds"] == 0


def test_a_file_that_is_gone_costs_its_part_alone(view: RecipeView, tmp_path: Path) -> None:
    gone = {"table": tmp_path / "gone.arrow"}
    stages = [replace(one, outputs=gone) if one.kind == "redistribute" else one for one in view.stages]
    html = write_recipe_page(replace(view, stages=stages), tmp_path / "report.html").read_text()
    assert "This part cannot be shown" in html
    assert "Worst classes" in html


@pytest.mark.parametrize("models", [1, 30])
def test_graphs_of_any_width_and_hostile_names(models: int) -> None:
    stages = [stage("data", "build", [])]
    for number in range(models):
        stages.append(stage(f"train[model={number}]", "train", [("data", "data", "dataset")], state="unfinished"))
    stages += [replace(stages[-1], name=name, template=name) for name in HOSTILE]
    assert_plain_svg(graph_figure(RecipeView("x", "", stages)))


def test_chromium_shows_the_page_without_complaints(view: RecipeView, tmp_path: Path) -> None:
    chromium = next(
        (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
    )
    if chromium is None:
        pytest.skip("there is no Chromium")
    page, shot = write_recipe_page(view, tmp_path / "report.html"), tmp_path / "shot.png"
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={tmp_path}/profile",
        "--hide-scrollbars",
    ]
    options += ["--enable-logging=stderr", "--window-size=1000,2400", f"--screenshot={shot}", page.as_uri()]
    said = subprocess.run([chromium, *options], capture_output=True, text=True, check=True, timeout=120).stderr
    assert "CONSOLE" not in said  # where refusals of the page's content policy stand
    with Image.open(shot) as image:
        pixels = np.asarray(image.convert("RGB"))
    assert pixels.shape == (2400, 1000, 3)
    assert (pixels[1200:].std((0, 1)) > 5).all()  # figures and tables down to the end
