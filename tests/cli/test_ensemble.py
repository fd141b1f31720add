"""The commands ensemble and scores adjust, as a user runs them."""

import os
import pickle
import subprocess
import sys

import numpy as np
import pytest

from fasttrain.scores.table import ScoreTable

from ..scores.made_tables import models, written
from .called import fasttrain

STARTED = """
import sys
from fasttrain.cli.app import app
app(sys.argv[1:], standalone_mode=False)
slow = [name for name in ("torch", "pandas", "scipy.optimize", "scipy.stats", "matplotlib") if name in sys.modules]
sys.exit(f"imported: {slow}" if slow else 0)
"""


@pytest.fixture
def paths(tmp_path):
    return written(models((2.0, 1.0, 0.5), prefix="t"), tmp_path, "t")


@pytest.fixture
def labelled(tmp_path):
    return written(models((2.0, 1.0, 0.5)), tmp_path, "v")


def test_fitted_weights_and_temperatures(paths, labelled, tmp_path):
    out = ("--out", tmp_path / "e.arrow")
    report = fasttrain("ensemble", *paths, *out, "--weights", "fit", "--temperatures", "fit", "--validation", *labelled)
    assert report["weights"][0] > report["weights"][2]
    assert len(report["temperatures"]) == 3
    assert {"samples", "tables", "top1", "nll", "ece", "fit"} <= report.keys()
    one_by_one = [word for path in labelled for word in ("--validation", path)]
    again = fasttrain("ensemble", *one_by_one, *out, *paths, "--weights", "greedy", "--bags", "2")
    assert again["fit"]["bags"] == 2


def test_methods_and_types(paths, tmp_path):
    for method in ("rank", "vote"):
        report = fasttrain("ensemble", *paths, "--method", method, "--dtype", "float16", "--out", tmp_path / "e.arrow")
        assert ("agreement" in report) is (method == "vote")
        assert ScoreTable.read(tmp_path / "e.arrow").scores.dtype == np.float16
    report = fasttrain("ensemble", *paths, "--temperatures", "1,2,0.5", "--out", tmp_path / "e.arrow")
    assert report["temperatures"] == [1, 2, 0.5]


def test_wrong_use_is_one_sentence(paths, labelled, tmp_path):
    out = ("--out", tmp_path / "o.arrow")
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps(os.system))
    for arguments, code, message in (
        (("ensemble", *paths, *out, "--weights", "fit"), 1, "--validation"),
        (("ensemble", *paths, *out, "--weights", "fit", "--validation", *labelled[:2]), 1, "one a model"),
        (("ensemble", *paths, *out, "--weights", "fit", "--validation", *paths), 1, "hold the same samples"),
        (("ensemble", *paths, *out, "--method", "vote", "--space", "logits"), 1, "method vote has no space"),
        (("ensemble", *paths, *out, "--temperatures", "hot"), 2, "--temperatures"),
        (("ensemble", *paths, *out, "--weights", "best"), 2, "--weights"),
        (("ensemble", paths[0], tmp_path / "evil.pkl", *out), 1, "evil.pkl is not a score table"),
        (("scores", "import", tmp_path / "evil.pkl", "--kind", "probs", *out), 1, "system"),
        (("scores", "adjust", paths[0], *out), 1, "nothing to do"),
        (("scores", "adjust", paths[0], *out, "--rules", "ood_cv"), 1, "'bicycle'"),
    ):
        failed = fasttrain(*arguments, ok=False)
        assert failed["code"] == code, failed
        assert message in failed["error"]
        if code == 1:
            assert len(failed["error"].splitlines()) == 1
    assert not (tmp_path / "o.arrow").exists()


def test_without_a_device(paths, tmp_path):
    failed = subprocess.run(
        [
            sys.executable,
            "-m",
            "fasttrain.cli.app",
            "ensemble",
            *paths,
            "--device",
            "cuda",
            "--out",
            tmp_path / "e.arrow",
        ],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )
    assert failed.returncode == 1
    assert "torch sees no CUDA device" in failed.stderr
    assert len(failed.stderr.splitlines()) == 1


def test_adjusted_scores(paths, labelled, tmp_path):
    (tmp_path / "counts.csv").write_text("class,count\na,10\nb,20\nc,30\nd,40\n")
    (tmp_path / "rules.yaml").write_text("rules: [{predicted: a, other: b, margin: 1.0}]")
    out = ("--out", tmp_path / "u.arrow")
    options = ("--fit-temperature", labelled[0], "--train-counts", tmp_path / "counts.csv", "--tau", "0.5")
    report = fasttrain("scores", "adjust", paths[0], *options, "--rules", tmp_path / "rules.yaml", *out)
    assert {"samples", "temperature", "tau", "changed", "rules", "top1_before", "top1_after", "out"} <= report.keys()
    kept = fasttrain("pseudo", tmp_path / "u.arrow", "--threshold", "0.3", "--out", tmp_path / "p.csv")
    assert 0 < kept["kept"] < 300
    plain = subprocess.run(
        [
            sys.executable,
            "-m",
            "fasttrain.cli.app",
            "scores",
            "adjust",
            paths[0],
            "--rules",
            tmp_path / "rules.yaml",
            *out,
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "rule 1: a to b: " in plain


def test_they_start_at_once(paths, tmp_path):
    """Nothing slow is imported for what is not fitted."""
    (tmp_path / "rules.yaml").write_text("rules: [{predicted: a, other: b, margin: 1.0}]")
    for arguments in (
        ("ensemble", *paths),
        ("ensemble", *paths, "--method", "rank"),
        ("ensemble", *paths, "--method", "vote"),
        ("scores", "adjust", paths[0], "--temperature", "2", "--rules", tmp_path / "rules.yaml"),
    ):
        command = [sys.executable, "-c", STARTED, *map(str, arguments), "--out", str(tmp_path / "o.arrow")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
