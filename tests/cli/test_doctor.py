"""`fasttrain doctor` as a user runs it."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fasttrain.cli.app import app
from fasttrain.loading import optional


def test_doctor_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optional, "_found", lambda module: False)
    plain = CliRunner().invoke(app, ["doctor"])
    assert plain.exit_code == 0, plain.output
    assert "NVIDIA DALI: missing" in plain.stdout and "pip install nvidia-dali-cuda130" in plain.stdout
    facts = json.loads(CliRunner().invoke(app, ["doctor", "--json"]).stdout)
    assert {"NVIDIA DALI", "FFCV"} <= {part["name"] for part in facts["parts"] if not part["present"]}
    assert facts["versions"]["fasttrain"] in plain.stdout


def test_doctor_with_a_model(colour_tree: Path) -> None:
    small = f"{colour_tree} --model test_resnet --size 32 --batch-size 8 --device cpu --seconds 0 --set epochs=1"
    plain = CliRunner().invoke(app, ["doctor", *small.split()])
    assert plain.exit_code == 0, plain.output
    assert "loader alone (" in plain.stdout and "To go faster: " in plain.stdout.splitlines()[-1]
    result = CliRunner().invoke(app, ["doctor", *small.split(), "--json"])
    figures = json.loads(result.stdout)
    assert set(figures["images_per_s"]) == {"synthetic", "cached", "loader", "real"}


@pytest.mark.parametrize("arguments", [["DATA"], ["--model", "resnet18"]])
def test_data_and_model_belong_together(arguments: list[str]) -> None:
    assert CliRunner().invoke(app, ["doctor", *arguments]).exit_code == 2
