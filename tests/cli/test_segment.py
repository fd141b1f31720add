"""The commands of ``fasttrain segment``."""

import json

import pytest
from PIL import Image
from typer.testing import CliRunner

from fasttrain.base.errors import FasttrainError
from fasttrain.cli.app import app


def call(*arguments):
    result = CliRunner().invoke(app, ["segment", *map(str, arguments)])
    if isinstance(result.exception, FasttrainError):
        raise result.exception
    return result


def test_train_evaluate_and_predict(colour_masks, tmp_path):
    beton, run = colour_masks / "pairs.beton", tmp_path / "run"
    small = ["--model", "test_efficientnet", "--head-channels", 8, "--set", "head_embed=8", "--size", 32]
    length = ["--iterations", 2, "--interval", 1, "--batch-size", 4, "--device", "cpu", "--threads", 1]
    done = call("train", "--data", beton, "--val", beton, "--out", run, *small, *length, "--json")
    trained = json.loads(done.stdout)
    assert trained["epochs"] == 2 and 0 <= trained["miou"] <= 1 and trained["run"] == str(run)
    how = ["--mode", "slide", "--scales", "0.75,1", "--hflip", "--device", "cpu", "--threads", 1]
    measured = json.loads(call("evaluate", run, beton, *how, "--json").stdout)
    assert measured["samples"] == 12 and len(measured["iou"]) == 3
    assert {"miou", "aacc", "mdice", "mfscore", "acc", "absent"} <= measured.keys()
    plain = call("evaluate", run, beton, "--device", "cpu", "--threads", 1)
    assert plain.exit_code == 0 and "IoU" in plain.output
    predicted = call("predict", run, colour_masks / "images", "--out", tmp_path / "out", "--threads", 1, "--json")
    assert json.loads(predicted.stdout)["samples"] == 12
    assert Image.open(tmp_path / "out" / "00.png").mode == "P"


def test_wrong_usage(colour_masks, tmp_path):
    with pytest.raises(FasttrainError, match="no such file"):
        call("evaluate", tmp_path / "none.safetensors", colour_masks / "pairs.beton", "--device", "cpu")
    with pytest.raises(FasttrainError, match="leave pixels out"):
        call("evaluate", tmp_path, tmp_path, "--mode", "slide", "--crop", 5, "--stride", 9)
    assert call("train").exit_code == 2
    assert call("evaluate", tmp_path, tmp_path, "--scales", "a,b").exit_code == 2
