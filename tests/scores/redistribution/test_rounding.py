"""Labels within whole bounds, against linear programs and brute force."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fasttrain.base.errors import ScoresError
from fasttrain.scores.redistribution.exact import round_exact
from fasttrain.scores.redistribution.marginals import Marginals, bounds
from fasttrain.scores.redistribution.passes import HostPasses
from fasttrain.scores.redistribution.redistribute import RedistributeSettings, redistribute
from fasttrain.scores.redistribution.rounding import round_greedy
from fasttrain.scores.redistribution.sinkhorn import solve
from tests.scores.plan_cases import biased, log_softmax, rounded, table_of


@settings(max_examples=30)
@given(st.integers(2, 6), st.integers(2, 3), st.integers(0, 1000))
def test_exact_rounding_is_the_best_of_all_assignments(samples, classes, seed):
    values = log_softmax(np.random.default_rng(seed).normal(size=(samples, classes)))
    lower = np.full(classes, float(samples // classes))
    upper = np.full(classes, float(-(-samples // classes)))
    labels = rounded(round_exact, values, Marginals(lower, upper))
    best = max(
        sum(values[row, label] for row, label in enumerate(choice))
        for choice in itertools.product(range(classes), repeat=samples)
        if all(lower[c] <= choice.count(c) <= upper[c] for c in range(classes))
    )
    assert values[np.arange(samples), labels].sum() == pytest.approx(best)


@settings(max_examples=60)
@given(st.integers(1, 60), st.integers(1, 7), st.integers(0, 1000), st.booleans())
def test_greedy_rounding_keeps_the_bounds(samples, classes, seed, equality):
    generator = np.random.default_rng(seed)
    values = log_softmax(generator.normal(size=(samples, classes)) * 3)
    prior = generator.dirichlet(np.ones(classes))
    marginals = bounds(prior, samples, "0.5x", "2x", equality)
    try:
        labels = rounded(round_greedy, values, marginals)
    except ScoresError:
        assert not equality  # whole counts always exist under equality
        return
    counts = np.bincount(labels, minlength=classes)
    slack = 1 if equality else 1e-6
    assert (counts >= marginals.lower - slack).all()
    assert (counts <= marginals.upper + slack).all()


def test_greedy_and_exact_give_balanced_counts_from_the_plan():
    log_probs, labels = biased(200, 5)
    for how in ("greedy", "exact"):
        _, report = redistribute(table_of(log_probs, labels), RedistributeSettings(equality=True, round=how))
        assert (report["count_min"], report["count_max"]) == (40, 40)


@settings(max_examples=40)
@given(st.integers(2, 6), st.integers(2, 3), st.integers(0, 1000))
def test_exact_rounding_under_intervals_is_the_best_of_all(samples, classes, seed):
    generator = np.random.default_rng(seed)
    values = log_softmax(generator.normal(size=(samples, classes)) * 4).astype(np.float32)
    lower = np.array([float(generator.integers(0, samples // classes + 1)) for _ in range(classes)])
    upper = np.minimum(lower + generator.integers(1, samples + 1, classes), samples)
    if upper.sum() < samples:
        upper[:] = samples
    labels = rounded(round_exact, values, Marginals(lower, upper))
    best = max(
        sum(values[row, label] for row, label in enumerate(choice))
        for choice in itertools.product(range(classes), repeat=samples)
        if all(lower[c] <= choice.count(c) <= upper[c] for c in range(classes))
    )
    counts = np.bincount(labels, minlength=classes)
    assert ((counts >= lower) & (counts <= upper)).all()
    assert values[np.arange(samples), labels].sum() == pytest.approx(best, rel=1e-5)


def linear_program(values: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> float:
    """The largest summed score of any plan within the bounds."""
    from scipy.optimize import linprog
    from scipy.sparse import identity, kron

    samples, classes = values.shape
    rows = kron(identity(samples), np.ones((1, classes)))
    columns = kron(np.ones((1, samples)), identity(classes))
    found = linprog(
        -values.ravel(),
        A_eq=rows,
        b_eq=np.ones(samples),
        A_ub=np.concatenate([columns.toarray(), -columns.toarray()]),
        b_ub=np.concatenate([upper, -lower]),
        method="highs",
    )
    assert found.success
    return -found.fun


@pytest.mark.parametrize("eps", [None, 0.2])
@pytest.mark.parametrize("candidates", [1, 2, 64])
@pytest.mark.parametrize(("low", "high"), [(1.0, 1.0), (0.7, 1.3), (0.0, 1.1)])
def test_exact_labels_are_as_good_as_a_linear_program(low, high, candidates, eps):
    log_probs, _ = biased(60, 8, strength=3.0)
    marginals = Marginals(np.full(8, 7.5 * low), np.full(8, 7.5 * high))
    lower, upper = marginals.whole(60)
    passes = HostPasses(log_probs)
    solution = solve(passes, marginals)
    found = passes.assign(solution.v, solution.eps, candidates)
    result = round_exact(passes, solution.potential, found, lower, upper, eps)
    counts = np.bincount(result.label, minlength=8)
    assert ((counts >= lower) & (counts <= upper)).all()
    best = linear_program(log_probs, lower, upper)
    assert log_probs[np.arange(60), result.label].sum() == pytest.approx(best, abs=1e-8)
    assert result.gap < 1e-9


@settings(max_examples=40)
@given(st.integers(1, 25), st.integers(1, 7), st.integers(0, 10_000), st.booleans())
def test_exact_labels_of_any_problem_are_the_best(samples, classes, seed, zeros):
    """One candidate a sample at first, wild prices, and scores of -inf: the flow has to find more by itself."""
    generator = np.random.default_rng(seed)
    values = log_softmax(generator.normal(size=(samples, classes)) * 4)
    if zeros:
        values[generator.random(values.shape) < 0.4] = -np.inf
        values[:, 0] = np.where(np.isfinite(values).any(1), values[:, 0], 0.0)
    lower = np.array([generator.integers(0, samples // classes + 1) for _ in range(classes)])
    upper = np.minimum(lower + generator.integers(0, samples + 1, classes), samples)
    if upper.sum() < samples:
        upper[:] = samples
    potential = np.where(upper > 0, generator.normal(size=classes), -np.inf)
    if not np.isfinite(values[:, upper > 0]).any(1).all():
        return
    passes = HostPasses(values)
    result = round_exact(passes, potential, passes.assign(potential, 1.0, 1), lower, upper)
    finite = np.where(np.isfinite(values), values, values[np.isfinite(values)].min() - 50)
    best = linear_program(finite, lower, upper)
    assert finite[np.arange(samples), result.label].sum() == pytest.approx(best, abs=1e-6)
    assert result.gap < 1e-6


@pytest.mark.parametrize("how", ["greedy", "exact"])
def test_whole_labels_of_a_wide_problem_take_few_candidates(how, monkeypatch):
    monkeypatch.setattr("fasttrain.scores.redistribution.labels.CANDIDATES", 2)
    log_probs, _ = biased(120, 40, strength=4.0)
    _, report = redistribute(table_of(log_probs), RedistributeSettings(equality=True, round=how))
    assert (report["count_min"], report["count_max"]) == (3, 3)
    assert 0 <= report["rounding_gap"] < (0.5 if how == "greedy" else 1e-9)


def test_whole_bounds_that_do_not_exist_are_refused_before_the_first_pass(monkeypatch):
    log_probs, _ = biased(7, 4)
    monkeypatch.setattr(
        "fasttrain.scores.redistribution.problem.solve", lambda *_, **__: pytest.fail("a pass was made")
    )
    for how in ("greedy", "exact"):
        with pytest.raises(ScoresError, match="no whole numbers"):
            redistribute(table_of(log_probs), RedistributeSettings(round=how))


def test_wished_counts_are_rounded_to_the_plans_own():
    log_probs, _ = biased(200, 5, strength=4.0)
    _, free = redistribute(table_of(log_probs), RedistributeSettings(lower="0", upper="5x"))
    _, report = redistribute(table_of(log_probs), RedistributeSettings(relax=0.5, round="exact"))
    assert report["converged"]
    assert free["count_min"] <= report["count_min"] < 40 < report["count_max"] < free["count_max"]


def test_fewer_samples_than_classes():
    log_probs, labels = biased(20, 50)
    for how in ("argmax", "greedy", "exact"):
        settings_ = RedistributeSettings(lower="0", upper="1", round=how)
        result, report = redistribute(table_of(log_probs, labels), settings_)
        assert report["converged"]
        assert how == "argmax" or report["count_max"] == 1
        assert len(result.predictions("assigned")) == 20
