"""The command ``soup``, and that what it writes is evaluated and predicted with like any checkpoint."""

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


@pytest.fixture(scope="module")
def run(colour_tree, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "r"
    options = ("--model", "test_resnet", "--size", "32", "--epochs", "3", "--batch-size", "6", "--device", "cpu")
    fasttrain("train", "--data", colour_tree, *options, "--out", out, "--set", "keep_last=2")
    return out


def test_from_a_run_to_scores(run, colour_tree, tmp_path):
    out = tmp_path / "s.safetensors"
    options = ("--run", run, "--last", "2", "--bn-data", colour_tree, "--bn-batches", "1", "--batch-size", "8")
    made = fasttrain("soup", *options, "--val", colour_tree, "--out", out, "--device", "cpu")
    assert (made["method"], made["statistics"], len(made["checkpoints"])) == ("last-k", "estimated", 2)
    assert fasttrain("evaluate", out, colour_tree, "--device", "cpu")["top1"] == made["top1"]
    assert fasttrain("predict", out, colour_tree, "--device", "cpu", "--out", tmp_path / "t.arrow")["samples"] == 24
    shown = fasttrain("scores", "show", tmp_path / "t.arrow")
    assert shown["meta"]["validation"]["val_top1"] == made["top1"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--last", "2"), "name the checkpoints"),
        (("--method", "last-k", "--run", "RUN"), "it takes --run RUN --last K"),
        (("RUN", "--weights", "a,b"), "not numbers with commas"),
    ],
)
def test_wrong_usage(run, tmp_path, options, message):
    given = [str(run) if option == "RUN" else option for option in options]
    result = CliRunner().invoke(app, ["soup", *given, "--out", str(tmp_path / "s.safetensors")])
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--run", "RUN", "--last", "5"), "keeps the checkpoints of 2 epochs, not of 5"),
        (("RUN", "--method", "greedy"), "--val"),
        (("RUN", "--weights", "1,2"), "2 weights do not fit 1 checkpoints"),
    ],
)
def test_what_cannot_be_done_is_a_sentence_and_leaves_nothing(run, tmp_path, options, message):
    with pytest.raises(FasttrainError, match=message):
        fasttrain("soup", *(str(run) if option == "RUN" else option for option in options), "--out", tmp_path / "s")
    assert not (tmp_path / "s").exists()
