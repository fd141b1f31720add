"""The command itself: start-up, exit codes, one-sentence errors."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from fasttrain.cli.app import app
from fasttrain.training.settings import TrainSettings

REPOSITORY = Path(__file__).resolve().parents[2]


def run(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(REPOSITORY / "cli.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=REPOSITORY)


def test_help_lists_the_commands():
    result = run("--help")
    assert result.returncode == 0
    for command in ("build", "train", "predict", "ensemble", "redistribute", "demo"):
        assert command in result.stdout


def test_start_up_does_not_import_torch():
    code = "import sys; import fasttrain.cli.app; sys.exit('torch' in sys.modules or 'pyarrow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_wrong_usage_exits_with_2():
    assert run("train").returncode == 2
    assert run("no-such-command").returncode == 2


def test_an_error_is_one_sentence_unless_debugging():
    result = run("info", "absent.beton")
    assert result.returncode == 1
    assert "absent.beton" in result.stderr
    assert "Traceback" not in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert "Traceback" in run("info", "absent.beton", "--debug").stderr


@pytest.mark.parametrize("module", ["fasttrain.beton_build.build", "fasttrain.scores.redistribution.redistribute"])
def test_rooms_without_torch(module):
    code = f"import sys; import {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(("options", "index"), [([], True), (["--index"], True), (["--no-index"], False)])
def test_train_passes_the_choice_of_the_index_on(
    options: list[str], index: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[TrainSettings] = []

    def train(settings: TrainSettings, *, resume: bool) -> SimpleNamespace:
        given.append(settings)
        return SimpleNamespace(run="runs/train")

    monkeypatch.setattr("fasttrain.training.run.train", train)
    result = CliRunner().invoke(app, ["train", "--data", "a.beton", *options])
    assert result.exit_code == 0, result.output
    assert [settings.index for settings in given] == [index]
