"""Prediction and evaluation of generated images through real (tiny) models."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fasttrain.base.errors import ConfigError
from fasttrain.beton_build.build import build
from fasttrain.beton_build.options import BuildOptions
from fasttrain.beton_build.reader import BetonReader
from fasttrain.beton_build.sources import read_source
from fasttrain.inference.evaluate import evaluate
from fasttrain.inference.predict import predict
from fasttrain.inference.tta import test_time_views as views_of
from fasttrain.kernels.loading import loading_available
from fasttrain.loading.loader import Loader
from fasttrain.loading.views import eval_view
from fasttrain.models.checkpoint import CheckpointInfo, save_weights
from fasttrain.models.create import create_model
from fasttrain.models.opened import OpenedModel, open_model
from fasttrain.scores.table import ScoreTable

MODEL, CLASSES = "test_resnet", ["blue", "green", "red"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("run") / "last.safetensors"
    torch.manual_seed(0)
    view = eval_view(32, crop_pct=0.8).model_dump(mode="json")
    info = CheckpointInfo(MODEL, 3, CLASSES, view, train_counts=[30, 20, 10])
    save_weights(path, create_model(MODEL, 3).state_dict(), info)
    return path


@pytest.fixture(scope="module")
def opened(checkpoint) -> OpenedModel:
    return open_model(checkpoint)


@pytest.mark.parametrize("tta", ["none", "hflip", "fivecrop", "tencrop", "multiscale", "shift"])
def test_logits_are_the_mean_over_the_views(opened, colour_tree, tmp_path, tta):
    result = predict(opened, colour_tree, tmp_path / "s.arrow", tta=tta, batch_size=7)
    assert result["samples"] == 24
    table = ScoreTable.read(tmp_path / "s.arrow")
    expected = []
    for view in views_of(opened.view, tta, opened.patch):
        with Loader(colour_tree, 24, view=view) as loader:
            batch = next(iter(loader))
            ids = loader.string_ids(batch.ids)
            with torch.inference_mode():
                expected.append(opened.module(batch.images).numpy())
    assert table.ids == ids
    np.testing.assert_allclose(table.scores, np.mean(expected, 0), rtol=1e-4, atol=1e-5)
    assert table.classes == CLASSES
    assert table.meta["tta"] == tta
    assert table.meta["train_counts"] == {"blue": 30, "green": 20, "red": 10}
    assert [CLASSES[label] for label in table.labels] == [name.split("/")[0] for name in table.ids]


def test_the_views():
    view = eval_view(32, crop_pct=1.0)
    assert len(views_of(view, "none")) == 1
    assert [v.hflip for v in views_of(view, "hflip")] == [False, True]
    five = views_of(view, "fivecrop")
    assert len({v.anchor for v in five}) == 5
    assert {v.crop_pct for v in five} == {0.875}  # else all five would be the whole image
    ten = views_of(view, "tencrop")
    assert len({(v.anchor, v.hflip) for v in ten}) == 10
    assert {v.crop_pct for v in ten} == {0.875}
    assert [v.size for v in views_of(view, "multiscale")] == [24, 32, 40]
    with pytest.raises(ConfigError, match="fivecrop, tencrop"):
        views_of(view, "twocrop")


@pytest.mark.parametrize(
    ("side", "patch", "sides"),
    [(224, 1, [160, 224, 288]), (224, 16, [160, 224, 288]), (224, 14, [168, 224, 280]), (384, 4, [288, 384, 480])],
)
def test_scales_are_sides_that_strides_and_patches_divide(side, patch, sides):
    assert [v.size for v in views_of(eval_view(side), "multiscale", patch)] == sides


def test_a_model_of_one_size_is_shown_others_as_if_opened_at_them(colour_tree, tmp_path):
    path = tmp_path / "vit.safetensors"
    torch.manual_seed(0)
    view = eval_view(64).model_dump(mode="json")
    save_weights(path, create_model("test_vit", 3, size=64).state_dict(), CheckpointInfo("test_vit", 3, CLASSES, view))
    predict(open_model(path), colour_tree, tmp_path / "all.arrow", tta="multiscale")
    scores = []
    for size in (48, 64, 80):
        predict(open_model(path, size=size), colour_tree, tmp_path / "one.arrow")
        scores.append(ScoreTable.read(tmp_path / "one.arrow").scores)
    assert np.abs(scores[0] - scores[1]).max() > 1e-4
    found = ScoreTable.read(tmp_path / "all.arrow").scores
    np.testing.assert_allclose(found, np.mean(scores, 0), rtol=1e-4, atol=1e-5)


def test_a_model_that_takes_one_size_alone_is_named_before_anything_is_decoded(tmp_path):
    opened = OpenedModel("resmlp", create_model("resmlp_12_224", 3).eval(), eval_view(224), CLASSES, 3, "0123")
    with pytest.raises(ConfigError, match="160 pixels, and resmlp does not take them"):
        predict(opened, tmp_path / "nothing_there", tmp_path / "s.arrow", tta="multiscale")


def test_evaluation_does_not_depend_on_the_batch_size(opened, colour_tree):
    results = []
    for batch_size in (1, 7, 24, 64):
        with Loader(colour_tree, batch_size, view=opened.view) as loader:
            results.append(evaluate(opened.module, loader, 3, CLASSES))
    for result in results:
        assert result["samples"] == 24
        assert result["top1"] == results[0]["top1"]
        assert result["loss"] == pytest.approx(results[0]["loss"], rel=1e-5)


def test_a_part_of_the_classes_in_another_order_is_joined_by_name(opened, colour_tree, tmp_path):
    for name in ("red", "green"):
        (tmp_path / "part" / name).mkdir(parents=True)
        (tmp_path / "part" / name / "x.jpg").write_bytes((colour_tree / name / "0.jpg").read_bytes())
    predict(opened, tmp_path / "part", tmp_path / "s.arrow")
    table = ScoreTable.read(tmp_path / "s.arrow")
    assert [CLASSES[label] for label in table.labels] == ["green", "red"]


def test_broken_images_are_named_and_left_out_on_request(opened, colour_tree, tmp_path):
    (tmp_path / "flat").mkdir()
    for index in range(4):
        (tmp_path / "flat" / f"{index}.jpg").write_bytes((colour_tree / "red" / f"{index}.jpg").read_bytes())
    whole = (tmp_path / "flat" / "2.jpg").read_bytes()
    (tmp_path / "flat" / "2.jpg").write_bytes(whole[: len(whole) // 2])
    result = predict(opened, tmp_path / "flat", tmp_path / "s.arrow", on_error="skip", tta="hflip")
    assert result["samples"] == 3
    assert [entry["id"] for entry in result["skipped"]] == ["2.jpg"]
    table = ScoreTable.read(tmp_path / "s.arrow")
    assert table.ids == ["0.jpg", "1.jpg", "3.jpg"]
    assert (table.labels == -1).all()


@pytest.mark.skipif(not loading_available(), reason="the native kernels were not built")
def test_damage_that_only_some_views_show(opened, colour_tree, tmp_path):
    """Below the upper crops, in the lower ones: the sample is left out, and the others' logits are their own."""
    (tmp_path / "flat").mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (200, 100, 3), np.uint8)
    for index in range(6):
        Image.fromarray(np.roll(noise, index, 0)).save(tmp_path / "flat" / f"{index}.jpg", subsampling=0)
    sources = read_source(tmp_path / "flat")
    build(sources, tmp_path / "a.beton", BuildOptions(workers=1))
    predict(opened, tmp_path / "a.beton", tmp_path / "whole.arrow", tta="fivecrop", batch_size=4)
    with BetonReader(tmp_path / "a.beton") as reader:
        start, size = int(reader.offsets[1]), int(reader.sizes[1])
    with (tmp_path / "a.beton").open("r+b") as file:
        file.seek(start + size * 8 // 10)
        file.write(b"\xff\xd9" * 20)
    for index in (True, False):
        result = predict(
            opened, tmp_path / "a.beton", tmp_path / "s.arrow",
            tta="fivecrop", batch_size=4, index=index, backend="native", on_error="skip",
        )  # fmt: skip
        assert result["samples"] == 5 and [entry["id"] for entry in result["skipped"]] == ["1.jpg"]
        whole, found = (ScoreTable.read(tmp_path / name) for name in ("whole.arrow", "s.arrow"))
        assert found.ids == [name for name in whole.ids if name != "1.jpg"]
        np.testing.assert_allclose(found.scores, np.delete(whole.scores, 1, 0), atol=0.05)


def fasttrain(*arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "fasttrain.cli.app", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_commands(checkpoint, colour_tree, tmp_path):
    done = fasttrain("evaluate", checkpoint, colour_tree, "--no-index", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout).keys() == {"samples", "top1", "top5", "loss", "macro_f1"}
    unlabelled = fasttrain("evaluate", checkpoint, colour_tree / "red")
    assert unlabelled.returncode == 1
    assert "fasttrain predict" in unlabelled.stderr.splitlines()[-1]


def test_two_processes_write_the_table_of_one(checkpoint, opened, colour_tree, tmp_path):
    predict(opened, colour_tree, tmp_path / "one.arrow", batch_size=5)
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
        *("-m", "fasttrain.cli.app", "predict", str(checkpoint), str(colour_tree), "--batch-size", "5"),
        *("--device", "cpu", "--threads", "1", "--out", str(tmp_path / "two.arrow"), "--json"),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["samples"] == 24
    one, two = ScoreTable.read(tmp_path / "one.arrow"), ScoreTable.read(tmp_path / "two.arrow")
    assert one.ids == two.ids
    np.testing.assert_array_equal(one.labels, two.labels)
    np.testing.assert_allclose(one.scores, two.scores, rtol=1e-4, atol=1e-5)
