"""Sinkhorn against a dense solver, its optimality conditions, and brute force."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fasttrain.base.config import load_settings
from fasttrain.base.errors import ConfigError, ScoresError
from fasttrain.kernels.softmax_colsum import softmax_colsum
from fasttrain.scores import dual as dual_of
from fasttrain.scores.exact import round_exact
from fasttrain.scores.greedy_k import greedy_k
from fasttrain.scores.marginals import Marginals, bounds
from fasttrain.scores.passes import HostPasses
from fasttrain.scores.priors import read_prior
from fasttrain.scores.redistribute import RedistributeSettings, redistribute, sensitivity
from fasttrain.scores.rounding import round_greedy
from fasttrain.scores.sinkhorn import solve
from fasttrain.scores.table import ScoreTable


def log_softmax(values: np.ndarray) -> np.ndarray:
    top = values.max(1, keepdims=True)
    return values - top - np.log(np.exp(values - top).sum(1, keepdims=True))


def biased(samples: int, classes: int, seed: int = 0, strength: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    """Log-probabilities of a classifier that prefers some classes, on balanced true labels."""
    generator = np.random.default_rng(seed)
    labels = np.arange(samples) % classes
    logits = generator.normal(size=(samples, classes)) + strength * generator.normal(size=classes)
    logits[np.arange(samples), labels] += 3.0
    return log_softmax(logits), labels


def table_of(log_probs: np.ndarray, labels: np.ndarray | None = None) -> ScoreTable:
    samples, classes = log_probs.shape
    names = [f"c{i}" for i in range(classes)]
    known = {} if labels is None else {"labels": labels}
    return ScoreTable([f"s{i}" for i in range(samples)], log_probs.astype(np.float32), names, "log_probs", **known)


def rounded(how, values: np.ndarray, marginals: Marginals) -> np.ndarray:
    """Labels by a rounding that starts at prices of 0."""
    passes = HostPasses(values)
    found = passes.assign(np.zeros(values.shape[1]), 1.0, 2)
    result = how(passes, np.zeros(values.shape[1]), found, *marginals.whole(len(values)))
    return result if how is round_greedy else result.label


def plan(log_probs: np.ndarray, result) -> np.ndarray:
    return np.exp(log_softmax((log_probs + result.potential) / result.eps))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(1, 33), st.sampled_from([np.float16, np.float32, np.float64]), st.integers(0, 9))
def test_column_sums_agree_with_float64(samples, classes, dtype, seed):
    generator = np.random.default_rng(seed)
    scores = (generator.normal(size=(samples, classes)) * 5).astype(dtype)
    offsets = generator.normal(size=classes)
    expected = np.exp(log_softmax(scores.astype(np.float64) / 0.3 + offsets)).sum(0)
    got = softmax_colsum(scores, offsets, 0.3)
    np.testing.assert_allclose(got, expected, rtol=1e-4 if dtype != np.float64 else 1e-10, atol=1e-7)
    assert got.sum() == pytest.approx(samples, rel=1e-5)


def test_column_sums_do_not_depend_on_a_row_shift():
    scores = np.random.default_rng(0).normal(size=(50, 7))
    shifted = scores + np.random.default_rng(1).normal(size=(50, 1)) * 100
    offsets = np.linspace(-1, 1, 7)
    np.testing.assert_allclose(softmax_colsum(shifted, offsets, 0.5), softmax_colsum(scores, offsets, 0.5), rtol=1e-9)


def test_equality_agrees_with_a_dense_two_sided_sinkhorn():
    log_probs, _ = biased(60, 5)
    expected = np.full(5, 12.0)
    kernel = np.exp(log_probs / 0.2)
    v = np.ones(5)
    for _ in range(20_000):
        u = 1 / (kernel @ v)
        v = expected / (kernel.T @ u)
    result = solve(HostPasses(log_probs), Marginals(expected, expected), tolerance=1e-9)
    np.testing.assert_allclose(plan(log_probs, result), u[:, None] * kernel * v, atol=1e-6)
    assert result.converged


def test_intervals_meet_the_optimality_conditions():
    log_probs, _ = biased(400, 10)
    marginals = Marginals(np.full(10, 36.0), np.full(10, 44.0))
    result = solve(HostPasses(log_probs), marginals, tolerance=1e-7)
    sums, v = plan(log_probs, result).sum(0), result.potential
    assert result.converged
    assert (sums >= 36 - 1e-3).all()
    assert (sums <= 44 + 1e-3).all()
    assert (v > 1e-6).any()
    assert (v < -1e-6).any()
    np.testing.assert_allclose(sums[v > 1e-6], 36, atol=1e-2)  # raised only where the lower bound holds it
    np.testing.assert_allclose(sums[v < -1e-6], 44, atol=1e-2)
    assert result.dual_gap == pytest.approx(0, abs=1e-5)


def test_bounds_that_nothing_violates_change_nothing():
    log_probs, _ = biased(100, 4)
    result = solve(HostPasses(log_probs), Marginals(np.zeros(4), np.full(4, 100.0)))
    np.testing.assert_array_equal(result.potential, 0)


def test_an_interval_that_shuts_is_equality():
    log_probs, _ = biased(200, 5)
    exact = solve(HostPasses(log_probs), Marginals(np.full(5, 40.0), np.full(5, 40.0)), tolerance=1e-8)
    narrow = solve(HostPasses(log_probs), Marginals(np.full(5, 40.0 - 1e-4), np.full(5, 40.0 + 1e-4)), tolerance=1e-8)
    np.testing.assert_allclose(plan(log_probs, narrow), plan(log_probs, exact), atol=1e-3)


def test_classes_may_come_in_any_order():
    log_probs, _ = biased(150, 6)
    order = np.array([4, 2, 0, 5, 1, 3])
    lower, upper = np.linspace(10, 20, 6), np.linspace(25, 40, 6)
    straight = solve(HostPasses(log_probs), Marginals(lower, upper), tolerance=1e-6)
    turned = solve(HostPasses(log_probs[:, order]), Marginals(lower[order], upper[order]), tolerance=1e-6)
    np.testing.assert_allclose(turned.potential, straight.potential[order], atol=1e-9)


def test_a_class_of_prior_0_stays_empty(tmp_path):
    log_probs, _ = biased(90, 4)
    prior = tmp_path / "prior.csv"
    prior.write_text("class,count\nc0,10\nc1,0\nc2,10\nc3,10\n")
    result, report = redistribute(table_of(log_probs), RedistributeSettings(prior=str(prior)))
    assert report["converged"]
    assert not (result.assigned == 1).any()
    certain = log_probs.copy()
    certain[0] = [-np.inf, 0, -np.inf, -np.inf]
    with pytest.raises(ScoresError, match="prior above 0"):
        redistribute(table_of(certain), RedistributeSettings(prior=str(prior)))


def test_it_beats_argmax_and_the_heuristic_on_a_biased_classifier():
    log_probs, labels = biased(1000, 20)
    table = table_of(log_probs, labels)
    _, report = redistribute(table)
    _, heuristic = redistribute(table, RedistributeSettings(method="greedy-k", k=45))
    assert report["top1_after"] > report["top1_before"] + 0.1
    assert report["top1_after"] > heuristic["top1_after"]
    assert heuristic["converged"] is None


def test_the_report_and_the_table():
    log_probs, labels = biased(200, 5)
    source = table_of(log_probs, labels)
    result, report = redistribute(source)
    assert result.assigned is not None
    assert result.assigned_p is not None
    np.testing.assert_array_equal(result.scores, source.scores)
    np.testing.assert_array_equal(result.labels, source.labels)
    assert report["changed"] == int((result.assigned != source.argmax()).sum())
    counts = np.bincount(result.assigned, minlength=5)
    assert (report["count_min"], report["count_max"]) == (counts.min(), counts.max())
    assert ((result.assigned_p > 0) & (result.assigned_p <= 1)).all()
    assert result.meta["redistribution"]["prior"] == "uniform"
    again, _ = redistribute(source)
    assert again.assigned_p.tobytes() == result.assigned_p.tobytes()


def test_not_converging_is_said():
    log_probs, _ = biased(300, 6, strength=30.0)
    result = solve(HostPasses(log_probs), Marginals(np.full(6, 50.0), np.full(6, 50.0)), eps=0.001, tolerance=1e-12)
    assert not result.converged


@settings(max_examples=30, deadline=None)
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


@settings(max_examples=60, deadline=None)
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


def test_the_heuristic_as_published():
    # class 2 was predicted never: it takes its best sample, though class 1 then has none
    probs = np.array([[0.7, 0.2, 0.1], [0.6, 0.3, 0.1], [0.1, 0.5, 0.4]])
    assert greedy_k(probs, 1).tolist() == [0, 0, 2]
    assert greedy_k(probs, 0).tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lower": "2x"}, "at least 45 and at most"),
        ({"lower": "30", "upper": "40"}, "ask for 120 samples, there are 90"),
        ({"upper": "0.5x", "lower": "0"}, "room for 45 of 90"),
        ({"lower": "many"}, "not 'many'"),
        ({"prior": "absent.csv"}, "absent.csv"),
    ],
)
def test_impossible_bounds_are_sentences(changes, message):
    log_probs, _ = biased(90, 4)
    with pytest.raises(ScoresError, match=message):
        redistribute(table_of(log_probs), RedistributeSettings(**changes))


def test_k_belongs_to_greedy_k():
    for values in ({"method": "greedy-k"}, {"k": 3}):
        with pytest.raises(ConfigError, match="greedy-k"):
            load_settings(RedistributeSettings, values)


def test_a_prior_file_must_name_each_class_once(tmp_path):
    path = tmp_path / "prior.csv"
    path.write_text("class,count\nb,30\na,10\n")
    np.testing.assert_allclose(read_prior(path, ["a", "b"]), [0.25, 0.75])
    for text, message in (
        ("class,count\na,10\n", "lacks class 'b'"),
        ("class,count\na,1\nb,1\nx,1\n", "'x'"),
        ("class,count\na,1\na,1\nb,1\n", "twice"),
        ("class,count\na,one\nb,1\n", "one"),
        ("class,count\na,-1\nb,1\n", "at least 0"),
    ):
        path.write_text(text)
        with pytest.raises(ScoresError, match=message):
            read_prior(path, ["a", "b"])


def test_sensitivity_does_not_look_at_labels():
    log_probs, labels = biased(200, 5)
    with_labels, without = table_of(log_probs, labels), table_of(log_probs)
    assert sensitivity(with_labels, RedistributeSettings()) == sensitivity(without, RedistributeSettings())
    rows = sensitivity(without, RedistributeSettings())
    assert {row["agreement"] for row in rows if (row["eps"], row["lower"]) == (0.2, 0.9)} == {1.0}


def dual(log_probs: np.ndarray, v: np.ndarray, marginals: Marginals, eps: float) -> float:
    """The dual objective, to be maximised, in float64."""
    exponent = log_probs / eps + v
    top = exponent.max(1)
    normalisers = (top + np.log(np.exp(exponent - top[:, None]).sum(1))).sum()
    return float(marginals.lower @ np.maximum(v, 0) - marginals.upper @ np.maximum(-v, 0) - normalisers)


@pytest.mark.parametrize(("low", "high"), [(0.9, 1.1), (1.0, 1.0), (0.0, 1.1), (0.5, 3.0)])
def test_the_dual_never_falls(low, high):
    log_probs, _ = biased(300, 6)
    marginals = Marginals(np.full(6, low * 50), np.full(6, high * 50))
    v, values = np.zeros(6), []
    for _ in range(60):
        values.append(dual(log_probs, v, marginals, 0.2))
        v = dual_of.step(v, softmax_colsum(log_probs, v, 0.2), marginals, 300, 0.2)
    assert (np.diff(values) >= -1e-9).all()
    assert values[-1] > values[0]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 8), st.integers(0, 1000))
def test_the_shift_is_the_best_constant(classes, seed):
    generator = np.random.default_rng(seed)
    v = generator.normal(size=classes) * 3
    expected = generator.dirichlet(np.ones(classes)) * 40
    marginals = Marginals(expected * 0.8, expected * 1.3)
    log_probs = log_softmax(generator.normal(size=(40, classes)))
    best = dual(log_probs, dual_of.centred(v, marginals, 40, 0.5), marginals, 0.5)
    for constant in np.linspace(-8, 8, 41):
        assert dual(log_probs, v + constant, marginals, 0.5) <= best + 1e-8


def test_default_bounds_need_few_iterations():
    log_probs, _ = biased(900, 30)
    assert redistribute(table_of(log_probs))[1]["iterations"] < 100


def test_a_plan_of_half_precision_scores_gives_the_same_labels():
    log_probs, _ = biased(2000, 20)
    table = table_of(log_probs)
    half = ScoreTable(table.ids, table.scores.astype(np.float16), table.classes, "log_probs")
    same = redistribute(table)[0].predictions("assigned") == redistribute(half)[0].predictions("assigned")
    assert same.mean() >= 0.998


def test_logits_and_their_log_probabilities_give_one_plan():
    log_probs, _ = biased(200, 5)
    shifted = log_probs + np.random.default_rng(0).normal(size=(200, 1)) * 5
    table = table_of(log_probs)
    logits = ScoreTable(table.ids, shifted.astype(np.float32), table.classes, "logits")
    one, two = redistribute(table)[0], redistribute(logits)[0]
    np.testing.assert_array_equal(one.assigned, two.assigned)
    np.testing.assert_allclose(one.assigned_p, two.assigned_p, atol=1e-3)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("shape", [(1, 1), (7, 3), (130, 33)])
def test_the_torch_pass_agrees_with_numpy(monkeypatch, dtype, shape):
    kernel = pytest.importorskip("fasttrain.kernels.softmax_colsum_torch")
    monkeypatch.setattr(kernel, "BLOCK_ENTRIES", 200)
    generator = np.random.default_rng(0)
    scores = (generator.normal(size=shape) * 5).astype(dtype)
    offsets = generator.normal(size=shape[1])
    if shape[1] > 1:
        offsets[0], scores[0, 1] = -np.inf, -np.inf
    got = kernel.TorchColumnSums(scores, "cpu")(offsets, 0.3)
    assert got.dtype == np.float64
    np.testing.assert_allclose(got, softmax_colsum(scores, offsets, 0.3), rtol=1e-4, atol=1e-6)


def test_the_torch_pass_solves_the_same_plan():
    kernel = pytest.importorskip("fasttrain.kernels.softmax_colsum_torch")
    log_probs = biased(300, 6)[0].astype(np.float32)
    marginals = Marginals(np.full(6, 45.0), np.full(6, 55.0))
    passes = kernel.TorchColumnSums(log_probs, "cpu")
    torch_passes = HostPasses(log_probs, column_sums=lambda v, eps: (passes(v, eps), 0.0))
    got, expected = solve(torch_passes, marginals), solve(HostPasses(log_probs), marginals)
    np.testing.assert_allclose(got.potential, expected.potential, atol=1e-4)


def test_a_missing_gpu_is_a_sentence(monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ScoresError, match="no CUDA device"):
        redistribute(table_of(biased(20, 2)[0]), RedistributeSettings(device="cuda"))


def test_a_class_that_is_possible_for_none_is_refused_at_once():
    log_probs, _ = biased(40, 4)
    log_probs[:, 2] = -np.inf
    with pytest.raises(ScoresError, match="class 2"):
        redistribute(table_of(log_softmax(log_probs)))


@settings(max_examples=40, deadline=None)
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


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"equality": True, "lower": "0.5x"}, "no room for lower"),
        ({"method": "greedy-k", "k": 3, "eps": 0.5}, "has no eps"),
        ({"method": "greedy-k", "k": 3, "round": "exact", "prior": "uniform"}, "has no prior, round"),
    ],
)
def test_settings_without_effect_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        load_settings(RedistributeSettings, changes)


def test_the_heuristic_takes_a_sample_twice_and_the_last_class_has_it():
    # classes 1 and 2 both want row 0, served in order: class 2 keeps it and class 1 stays empty
    probs = np.array([[0.4, 0.3, 0.3], [0.8, 0.1, 0.1], [0.9, 0.05, 0.05]])
    assert greedy_k(probs, 1).tolist() == [2, 0, 0]
