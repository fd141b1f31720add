"""The command `demo`: refuses folders of others, prints one JSON object. What it does is tested in `tests/tools`."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from fasttrain.cli.app import main
from fasttrain.scores.table import ScoreTable
from fasttrain.tools import demo
from fasttrain.tools.demo_result import DemoResult, DemoSettings
from fasttrain.tools.sample_data import SampleSet, SampleSettings


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["fasttrain", "demo", *arguments])
    with pytest.raises(SystemExit) as exit_:
        main()
    return int(exit_.value.code or 0)


def measured(settings: DemoSettings) -> DemoResult:
    """What a demo would return that was right about one of two images."""
    counts = np.array([3, 2])
    result = DemoResult(settings, SampleSet(Path("train"), Path("test"), counts, counts, SampleSettings()))
    table = ScoreTable(["a", "b"], np.eye(2, dtype=np.float32), ["x", "y"], "logits", np.array([0, 0]))
    result.scores = {"some_model": table}
    result.ensemble = result.redistributed = result.wrong_prior = table
    result.figures["pseudo"] = {"kept": 1, "samples": 2}
    return result


def test_folders_of_others_are_left_alone(monkeypatch, capsys, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").touch()
    assert run(monkeypatch, "--out", str(tmp_path)) == 1
    assert "no demo wrote" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_options_reach_the_demo_and_json_is_one_object(monkeypatch, capsys) -> None:
    seen = []
    monkeypatch.setattr(demo, "run_demo", lambda settings: seen.append(settings) or measured(settings))
    assert run(monkeypatch, "--out", "x", "--seed", "7", "--device", "cpu", "--json") == 0
    assert seen == [DemoSettings(out=Path("x"), seed=7, device="cpu")]
    out, err = capsys.readouterr()
    printed = json.loads(out)
    assert printed["top1"]["some_model"] == printed["top1"]["ensemble"] == 0.5
    assert printed["samples"] == {"train": 5, "test": 5}
    assert "50% of the contrast" in err and "some_model" in err
