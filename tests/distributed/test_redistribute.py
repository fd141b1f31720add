"""Re-distribution by several torchrun processes, each with its share of the rows, beside a single one."""

import json
from pathlib import Path

import numpy as np
import pytest

from fasttrain.scores.table import ScoreTable
from tests.scores.plan_cases import biased

from .launched import on_ranks, run

APP = "fasttrain.cli.app"


def fasttrain(*arguments: object, ranks: int = 1, ok: bool = True) -> dict:
    done = run(on_ranks(ranks, "-m", APP, *arguments, "--json"))
    assert (done.returncode == 0) is ok, done.stderr
    return json.loads(done.stdout) if ok else {"code": done.returncode, "error": done.stderr}


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tables")
    log_probs, labels = biased(601, 7)
    for name, rows in (("target", slice(301)), ("val", slice(301, 601))):
        scores, classes = log_probs[rows].astype(np.float32), [f"c{column}" for column in range(7)]
        ids = [f"{name}{row}" for row in range(len(scores))]
        ScoreTable(ids, scores, classes, "log_probs", labels=labels[rows]).write(folder / f"{name}.arrow")
    return folder


@pytest.mark.parametrize(
    "options",
    [("--round", "exact"), ("--prior", "estimate", "--calibrate", "val.arrow", "--round", "greedy", "--sensitivity")],
)
def test_ranks_find_what_one_process_finds(tables, tmp_path, options):
    options = [tables / option if str(option).endswith(".arrow") else option for option in options]
    reports, results = [], []
    for ranks in (1, 2):
        out = tmp_path / f"{ranks}.arrow"
        reports.append(fasttrain("redistribute", tables / "target.arrow", "--out", out, *options, ranks=ranks))
        results.append(ScoreTable.read(out))
    one, two = reports
    assert two.keys() == one.keys()
    for key in ("samples", "changed", "iterations", "converged", "count_min", "count_max", "top1_after", "sensitivity"):
        assert two.get(key) == one.get(key), key
    np.testing.assert_array_equal(results[1].assigned, results[0].assigned)
    np.testing.assert_allclose(results[1].assigned_p, results[0].assigned_p, atol=1e-3)


def test_a_bad_row_ends_all_ranks_with_its_name(tables, tmp_path):
    table = ScoreTable.read(tables / "target.arrow")
    scores = table.scores.copy()
    table.scores = scores
    scores[250, 3] = np.nan
    table.write(tmp_path / "bad.arrow")
    failed = fasttrain("redistribute", tmp_path / "bad.arrow", "--out", tmp_path / "o.arrow", ranks=2, ok=False)
    assert failed["code"] != 0
    assert "target250" in failed["error"]
    assert not (tmp_path / "o.arrow").exists()


@pytest.mark.thorough
def test_equal_jobs_give_equal_bits(tables, tmp_path):
    for name in ("a", "b"):
        fasttrain("redistribute", tables / "target.arrow", "--out", tmp_path / f"{name}.arrow", ranks=2)
    assert (tmp_path / "a.arrow").read_bytes() == (tmp_path / "b.arrow").read_bytes()
