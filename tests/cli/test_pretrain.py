"""The commands ``pretrain`` and ``probe``."""

import json

import pytest
from typer.testing import CliRunner

from fasttrain.base.errors import FasttrainError
from fasttrain.cli.app import app


def fasttrain(*arguments: object) -> dict:
    """What a command prints as JSON. In this process, since each new one imports torch."""
    result = CliRunner().invoke(app, [*map(str, arguments), "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_from_images_to_figures_of_features(colour_tree, tmp_path):
    out = tmp_path / "run"
    small = ("--model", "test_resnet", "--size", 32, "--epochs", 1, "--batch-size", 8, "--device", "cpu")
    made = fasttrain("pretrain", colour_tree, "--method", "mocov2", *small, "--queue", 16, "--out", out)
    assert made["epochs"] == 1 and {"checkpoint", "train_loss", "effective_rank"} <= made.keys()
    probed = fasttrain("probe", out, colour_tree, colour_tree, "--k", 3, "--device", "cpu")
    assert probed["samples"] == probed["train_samples"] == 24 and probed["knn_top1"] == 1
    assert probed["linear_top1"] > 0.6
    alone = fasttrain("probe", made["checkpoint"], colour_tree, colour_tree, "--knn", "--device", "cpu")
    assert "linear_top1" not in alone and "knn_top5" in alone
    with pytest.raises(FasttrainError, match="an encoder without a classifier"):
        fasttrain("evaluate", out, colour_tree, "--device", "cpu")
    shown = fasttrain("runs", "show", "run", "--root", tmp_path)
    assert shown


@pytest.mark.parametrize(("arguments", "words"), [(("--method", "mae"), "say what to train on"), (("x",), "say how")])
def test_what_is_missing_is_asked_for(arguments, words):
    result = CliRunner().invoke(app, ["pretrain", *arguments])
    assert result.exit_code == 2 and words in result.output
