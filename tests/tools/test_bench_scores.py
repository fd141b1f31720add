"""`bench scores` in small: its figures, and that the solvers it compares solve the same problem."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from fasttrain.base.errors import ConfigError
from fasttrain.kernels.softmax_colsum import native_there
from fasttrain.tools.bench.score_solvers import ITERATIONS, SOLVERS, Problem, marginal_error, missing, plain_iterations
from fasttrain.tools.bench.scores import ScoresBench, bench_scores

pytestmark = pytest.mark.skipif(not native_there(), reason="the native kernels were not built")


def test_passes_stand_beside_their_floors(tmp_path: Path) -> None:
    only = ("pass", "read", "exp", "ensemble", "solve-fasttrain")
    small = ScoresBench(
        rows=60, columns=20, tables=5, peer_rows=50, solve_rows=50, rounds=1, threads=1, only=only, scratch=tmp_path
    )
    figures = bench_scores(small)
    assert [entry["name"] for entry in figures["results"]] == list(only)
    assert all(entry["median"] > 0 for entry in figures["results"]), figures["results"]
    assert [entry["theirs"] for entry in figures["ratios"]] == ["read", "exp"]
    assert figures["results"][-1]["marginal_error"] <= 1e-3
    assert not list(tmp_path.iterdir())


def test_an_unknown_contestant_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no contestant is named 'nobody'"):
        bench_scores(ScoresBench(rows=2, columns=2, only=("nobody",), scratch=tmp_path))


@pytest.mark.parametrize("name", [name for name in SOLVERS if name != "fasttrain"])
def test_solvers_come_to_the_plan_that_is_ours(name: str) -> None:
    if name in missing():
        pytest.skip(missing()[name])
    scores = np.random.default_rng(0).normal(size=(30, 6)).astype(np.float16)
    problem = Problem(scores, 1.0, 1, 1e-6)
    ours, theirs = ITERATIONS["fasttrain"](problem), SOLVERS[name](problem)
    plans = [solver.plan(solver.ready(60)()) for solver in (ours, theirs)]
    assert max(map(marginal_error, plans)) < 1e-3
    np.testing.assert_allclose(plans[1] * 30, plans[0] * 30, atol=1e-3)


def test_the_solver_of_redistribute_takes_no_more_passes_than_plain_updates() -> None:
    scores = np.random.default_rng(0).normal(size=(200, 20)).astype(np.float16) * 4
    problem = Problem(scores, 0.2, 1, 1e-4)
    solver = SOLVERS["fasttrain"](problem)
    found = solver.ready(1000)()
    assert marginal_error(solver.plan(found)) <= 1e-4
    assert solver.spent is not None
    assert solver.spent(found) < plain_iterations(problem, 10_000)


def test_what_is_missing_names_its_package() -> None:
    assert ("ott" in missing()) == (importlib.util.find_spec("ott") is None)
