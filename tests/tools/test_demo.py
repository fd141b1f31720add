"""The demo: its files, its figures, and that the command lines it prints do the same."""

import csv
import json
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from fasttrain.base.errors import ConfigError
from fasttrain.cli.app import app
from fasttrain.scores.table import ScoreTable
from fasttrain.tools.demo import CONTENTS, MARKER, prepare_folder, run_demo
from fasttrain.tools.demo_result import DemoResult, DemoSettings, ModelPlan
from fasttrain.tools.sample_data import CLASS_NAMES, SampleSettings

MODELS = ("test_resnet", "test_vit")
SMALL = DemoSettings(
    out=Path("demo_out"),
    sample=SampleSettings(train_most=12, train_least=6, test_per_class=4),
    models=tuple(ModelPlan(name=name, epochs=2, lr=2e-3) for name in MODELS),
    threshold=0.05,
    device="cpu",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A working folder; relative paths in the printed commands start here."""
    path = tmp_path_factory.mktemp("work")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        yield path


@pytest.fixture(scope="module")
def result(folder: Path) -> DemoResult:
    return run_demo(SMALL)


def test_everything_is_there(folder: Path, result: DemoResult) -> None:
    out = folder / "demo_out"
    assert {path.name for path in out.iterdir()} == {*CONTENTS, MARKER}
    with (out / "submission.csv").open(newline="") as file:
        submitted = {row["id"]: row["label"] for row in csv.DictReader(file)}
    assert len(submitted) == 40 and set(submitted.values()) <= set(CLASS_NAMES)
    assert result.ensemble.classes == list(CLASS_NAMES)
    stored = json.loads((out / "result.json").read_text())
    assert list(stored["top1"]) == [*MODELS, "ensemble", "re-distributed", "re-distributed, wrong counts"]
    assert stored["samples"] == {"train": int(result.sample.train_counts.sum()), "test": 40}
    assert stored["pseudo"]["samples"] == 40


def test_accuracies_are_those_of_the_tables(folder: Path, result: DemoResult) -> None:
    tables = [*MODELS, "ensemble", "redistributed", "wrong_prior"]
    for name, (_, accuracy, _) in zip(tables, result.accuracies, strict=True):
        table = ScoreTable.read(folder / "demo_out" / "scores" / f"{name}.arrow")
        assert (table.labels >= 0).all() and np.bincount(table.labels).tolist() == [4] * 10
        assert accuracy == pytest.approx(np.mean(table.predictions() == table.labels))


def test_the_report_tells_all_of_it(folder: Path, result: DemoResult) -> None:
    html = (folder / "demo_out" / "report.html").read_text(encoding="utf-8")
    assert "http://" not in html and "https://" not in html
    for name, accuracy, _ in result.accuracies:
        assert name in html and f"{accuracy:.1%}" in html
    assert result.sample.settings.describe_shift() in html
    assert html.count("data:image/svg+xml") == 4  # curves, label counts, two confusion matrices
    assert html.count("data:image/jpeg") >= 8


def test_the_printed_commands_do_the_same(folder: Path, result: DemoResult) -> None:
    out, first = folder / "demo_out", folder / "first"
    shutil.copytree(out, first)
    prepare_folder(out)
    shutil.copytree(first / "images", out / "images")
    shutil.copy(first / "train_counts.csv", out)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for line in result.commands:
            words = shlex.split(line.removeprefix("OMP_NUM_THREADS=1 "))
            assert words[0] == "fasttrain"
            app(words[1:], standalone_mode=False)
    finally:
        torch.set_num_threads(threads)
    for name in ("pseudo.csv", "submission.csv"):
        assert (out / name).read_bytes() == (first / name).read_bytes()
    for path in sorted((first / "scores").iterdir()):
        np.testing.assert_array_equal(
            ScoreTable.read(out / "scores" / path.name).scores, ScoreTable.read(path).scores, path.name
        )


def test_other_folders_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "precious.txt").write_text("mine")
    with pytest.raises(ConfigError, match="no demo wrote"):
        prepare_folder(tmp_path)
    with pytest.raises(ConfigError, match="is a file"):
        prepare_folder(tmp_path / "runs" / "precious.txt")
    assert (tmp_path / "runs" / "precious.txt").read_text() == "mine"


def test_a_second_demo_replaces_the_first_and_nothing_else(tmp_path: Path) -> None:
    out = tmp_path / "new" / "demo"
    prepare_folder(out)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "kept.txt").touch()
    (out / "images").mkdir()
    (out / "images" / "old.png").touch()
    (out / "scores").symlink_to(elsewhere)
    (out / "notes.txt").touch()
    prepare_folder(out)
    assert {path.name for path in out.iterdir()} == {MARKER, "notes.txt"}
    assert (elsewhere / "kept.txt").exists()
