"""Stages of images and models: from folders to figures, interrupted in mid-training, in one process and in several."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from fasttrain.beton_build.reader import BetonReader
from fasttrain.recipes.state import RECORD
from fasttrain.scores.table import ScoreTable

from .conftest import fasttrain, write_recipe


@pytest.fixture
def recipe(colour_tree: Path, tmp_path: Path) -> Path:
    values: dict[str, Any] = {
        "name": "colours",
        "files": {"target": {"path": str(colour_tree), "target": True}},
        "stages": {
            "target_set": {"kind": "build", "sources": "${target}"},
            "train_set": {"kind": "build", "sources": str(tmp_path / "train")},
            "train": {
                "kind": "train",
                "data": "${train_set}",
                "model": "test_resnet",
                "size": 32,
                "epochs": 3,
                "batch_size": 4,
                "seed": 1,
                "threads": 1,
            },
            "predict": {"kind": "predict", "checkpoint": "${train}", "data": "${target_set}"},
            "accuracy": {"kind": "evaluate", "table": "${predict}", "labels": "${target_set.labels}"},
        },
    }
    subprocess.run(["cp", "-r", colour_tree, tmp_path / "train"], check=True)
    return write_recipe(tmp_path / "colours.yaml", values)


@pytest.mark.thorough
def test_training_that_is_killed_goes_on_and_ends_in_the_same_weights(recipe: Path, tmp_path: Path) -> None:
    whole, out = tmp_path / "whole", tmp_path / "work"
    first = fasttrain("recipe", "run", recipe, "--out", whole)
    assert first["results"]["accuracy"]["samples"] == 24
    with BetonReader(whole / "stages" / "target_set" / "data.beton") as reader:
        assert (reader.labels == -1).all()
    assert (ScoreTable.read(whole / "stages" / "predict" / "table.arrow").labels == -1).all()

    command = [sys.executable, "-m", "fasttrain.cli.app", "recipe", "run", str(recipe), "--out", str(out)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    state = out / "stages" / "train.part" / "run" / "last.state.pt"
    deadline = time.monotonic() + 120
    while not state.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()

    again = fasttrain("recipe", "run", recipe, "--out", out)
    assert {"target_set", "train_set"} <= set(again["skipped"])
    assert json.loads((out / "stages" / "train" / RECORD).read_text())["attempts"] == 2
    for name in ("train/run/last.safetensors", "predict/table.arrow", "accuracy/result.json"):
        assert (out / "stages" / name).read_bytes() == (whole / "stages" / name).read_bytes()


@pytest.mark.thorough
def test_processes_are_started_by_torchrun(recipe: Path, tmp_path: Path) -> None:
    more = ("--set", "stages.train.nproc=2", "--set", "stages.train.epochs=1")
    done = fasttrain("recipe", "run", recipe, "--out", tmp_path / "work", *more)
    assert set(done["done"]) == {"target_set", "train_set", "train", "predict", "accuracy"}
    command = json.loads((tmp_path / "work" / "stages" / "train" / RECORD).read_text())["command"]
    assert command[1:5] == ["-m", "torch.distributed.run", "--nproc-per-node", "2"]


def test_stages_side_by_side_have_gpus_of_their_own(recipe: Path, tmp_path: Path) -> None:
    """No GPU is needed for a build; it only shows which one a stage was given."""
    both = [word for name in ("target_set", "train_set") for word in ("--set", f"stages.{name}.gpus=1")]
    said = fasttrain(
        "recipe",
        "run",
        recipe,
        "--out",
        tmp_path / "work",
        *both,
        "--gpus",
        "7,9",
        "--only",
        "target_set",
        "--only",
        "train_set",
    )["said"]
    assert "target_set: started on GPU 7" in said
    assert "train_set: started on GPU 9" in said
