"""Tiny score tables and a recipe about them, whose real stages take a second and no torch."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from fasttrain.cli.app import app
from fasttrain.cli.toolbox import CommandLine
from fasttrain.recipes.toolbox import Toolbox

CLASSES = ("ant", "bee", "cat")


@pytest.fixture(scope="session")
def toolbox() -> Toolbox:
    """The real commands."""
    return CommandLine(app)


@pytest.fixture
def scores(tmp_path: Path) -> Path:
    """A folder with the scores of two models, ``a.csv`` and ``b.csv``, and ``labels.csv``."""
    folder = tmp_path / "scores"
    folder.mkdir()
    generator = np.random.default_rng(0)
    labels = np.arange(30) % 3
    lines = [f"s{row},{CLASSES[label]}\n" for row, label in enumerate(labels)]
    (folder / "labels.csv").write_text("id,label\n" + "".join(lines))
    for name in ("a", "b"):
        values = generator.normal(size=(30, 3))
        values[np.arange(30), labels] += 2
        rows = [f"s{row},{','.join(f'{value:.4f}' for value in line)}\n" for row, line in enumerate(values)]
        (folder / f"{name}.csv").write_text(f"id,{','.join(CLASSES)}\n" + "".join(rows))
    return folder


@pytest.fixture
def recipe(tmp_path: Path, scores: Path) -> Path:
    """From two files of scores to a submission, and figures by labels that nothing else sees."""
    values = {
        "name": "tiny",
        "vars": {"scores": str(scores), "threshold": 0.5},
        "files": {"truth": {"path": "${scores}/labels.csv", "type": "labels", "target": True}},
        "stages": {
            "tables": {
                "kind": "import",
                "for": {"model": ["a", "b"]},
                "scores": "${scores}/${model}.csv",
                "space": "logits",
            },
            "ensemble": {"kind": "ensemble", "tables": "${tables}"},
            "redistribute": {"kind": "redistribute", "table": "${ensemble}"},
            "pseudo": {"kind": "pseudo", "table": "${redistribute}", "threshold": "${threshold}"},
            "accuracy": {"kind": "evaluate", "table": "${redistribute}", "labels": "${truth}"},
            "submission": {"kind": "submit", "table": "${redistribute}", "format": "json"},
        },
    }
    return write_recipe(tmp_path / "tiny.yaml", values)


def write_recipe(path: Path, values: dict[str, Any]) -> Path:
    """Write a recipe as YAML."""
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return path


def fasttrain(*arguments: object, code: int = 0) -> dict[str, Any]:
    """Run a command with ``--json``; its result, and under "said" what it told people.

    Runs of recipes leave no report, which takes seconds, unless they are asked to.
    """
    quick = ["--no-report"] if arguments[:2] == ("recipe", "run") and "--report" not in arguments else []
    command = [sys.executable, "-m", "fasttrain.cli.app", *map(str, arguments), *quick, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    result: dict[str, Any] = json.loads(done.stdout) if done.stdout.strip() else {}
    return {**result, "said": done.stderr}
