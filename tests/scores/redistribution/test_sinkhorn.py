"""The solver against dense solvers in float64, its optimality conditions and its limits."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fasttrain.base.errors import ScoresError
from fasttrain.kernels.softmax_colsum import softmax_colsum
from fasttrain.scores.redistribution import dual as dual_of
from fasttrain.scores.redistribution.marginals import Marginals
from fasttrain.scores.redistribution.passes import HostPasses
from fasttrain.scores.redistribution.sinkhorn import solve
from tests.scores.plan_cases import biased, log_softmax, plan


@settings(max_examples=40)
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


def test_not_converging_is_said():
    log_probs, _ = biased(300, 6, strength=30.0)
    result = solve(HostPasses(log_probs), Marginals(np.full(6, 50.0), np.full(6, 50.0)), eps=0.001, tolerance=1e-12)
    assert not result.converged


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


@settings(max_examples=60)
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
    torch_passes = HostPasses(log_probs, held=kernel.TorchColumnSums(log_probs, "cpu"))
    got, expected = (solve(each, marginals, tolerance=1e-6) for each in (torch_passes, HostPasses(log_probs)))
    np.testing.assert_allclose(got.potential, expected.potential, atol=1e-4)


# --- other solvers --------------------------------------------------------------------------------------------------


def test_balanced_plans_are_those_of_pot():
    ot = pytest.importorskip("ot")
    for samples, classes, eps in ((40, 5, 0.2), (30, 30, 0.5), (7, 12, 1.0)):
        log_probs, _ = biased(samples, classes)
        counts = np.full(classes, samples / classes)
        expected = ot.bregman.sinkhorn_log(np.ones(samples), counts, -log_probs, eps, numItermax=50_000, stopThr=1e-12)
        result = solve(HostPasses(log_probs), Marginals(counts, counts), eps=eps, tolerance=1e-9)
        np.testing.assert_allclose(plan(log_probs, result), expected, atol=1e-5)


@settings(max_examples=20)
@given(st.integers(1, 12), st.integers(1, 9), st.integers(0, 10_000), st.booleans(), st.booleans())
def test_balanced_plans_of_odd_problems_are_those_of_pot(samples, classes, seed, twice, empty):
    """Fewer samples than classes, one class, duplicate rows, and classes that get nothing (POT is given the others)."""
    ot = pytest.importorskip("ot")
    generator = np.random.default_rng(seed)
    log_probs = np.repeat(log_softmax(generator.normal(size=(samples, classes))), 1 + twice, axis=0)
    counts = generator.dirichlet(np.full(classes, 3.0)) * len(log_probs)
    if empty and classes > 1:
        counts[0], counts[-1] = 0.0, counts[0] + counts[-1]
    got = plan(log_probs, solve(HostPasses(log_probs), Marginals(counts, counts), eps=0.5, tolerance=1e-9))
    taken = counts > 0
    ones = np.ones(len(log_probs))
    expected = ot.sinkhorn(ones, counts[taken], -log_probs[:, taken], 0.5, numItermax=3000, stopThr=1e-12, warn=False)
    np.testing.assert_allclose(got[:, taken], expected, atol=1e-5)
    assert not got[:, ~taken].any()


def dense_update(v, log_probs, marginals, eps):
    """A plain step in float64: each class solved alone, from the table of constraints."""
    exponent = log_probs / eps + v
    p = np.exp(exponent - exponent.max(1, keepdims=True))
    sums = (p / p.sum(1, keepdims=True)).sum(0)
    log_s = np.log(sums) - v
    if marginals.relax is not None:
        new = marginals.relax / (marginals.relax + eps) * (np.log(marginals.upper) - log_s)
    else:
        with np.errstate(divide="ignore"):
            new = np.clip(0, np.log(marginals.lower) - log_s, np.log(marginals.upper) - log_s)
    limit = np.inf if marginals.max_shift is None else marginals.max_shift / eps
    return np.clip(new, -limit, limit)


@pytest.mark.parametrize(
    ("low", "high", "relax", "max_shift"),
    [
        (0.9, 1.1, None, None),
        (1.0, 1.0, 0.3, None),
        (1.0, 1.0, 5.0, None),
        (0.0, 1.05, None, None),
        (0.9, 1.1, None, 0.4),
        (1.0, 1.0, 0.5, 0.3),
    ],
)
def test_plans_are_those_of_plain_steps_in_float64(low, high, relax, max_shift):
    log_probs, _ = biased(120, 6)
    marginals = Marginals(np.full(6, 20 * low), np.full(6, 20 * high), relax, max_shift)
    v = np.zeros(6)
    for _ in range(5000):
        v = dense_update(v, log_probs, marginals, 0.3)
    result = solve(HostPasses(log_probs), marginals, eps=0.3, tolerance=1e-9)
    assert result.converged
    np.testing.assert_allclose(plan(log_probs, result), np.exp(log_softmax(log_probs / 0.3 + v)), atol=1e-5)
    assert result.dual_gap == pytest.approx(0, abs=1e-6)


def test_a_strong_relaxation_is_equality_and_a_weak_one_nothing():
    log_probs, _ = biased(200, 5)
    counts = np.full(5, 40.0)
    exact = plan(log_probs, solve(HostPasses(log_probs), Marginals(counts, counts), tolerance=1e-9))
    strong = plan(log_probs, solve(HostPasses(log_probs), Marginals(counts, counts, 1e9), tolerance=1e-9))
    weak = plan(log_probs, solve(HostPasses(log_probs), Marginals(counts, counts, 1e-9), tolerance=1e-9))
    np.testing.assert_allclose(strong, exact, atol=1e-5)
    np.testing.assert_allclose(weak, np.exp(log_softmax(log_probs / 0.2)), atol=1e-5)


def test_no_score_changes_by_more_than_the_largest_shift():
    log_probs, _ = biased(300, 6, strength=6.0)
    counts = np.full(6, 50.0)
    result = solve(HostPasses(log_probs), Marginals(counts, counts, None, 1.0), tolerance=1e-6)
    assert result.converged
    assert np.abs(result.potential).max() <= 1.0 + 1e-9
    assert result.capped > 0
    assert result.marginal_error > 0.01  # and that is said


def test_the_dual_bounds_every_plan_from_above():
    log_probs, _ = biased(80, 5)
    counts = np.full(5, 16.0)
    result = solve(HostPasses(log_probs), Marginals(counts, counts), tolerance=1e-9)
    p = plan(log_probs, result)
    primal = ((p * log_probs).sum() - 0.2 * (p * np.log(p)).sum()) / 80
    assert result.dual == pytest.approx(primal, abs=1e-6)
    other = np.full((80, 5), 0.2)
    assert result.dual >= ((other * log_probs).sum() - 0.2 * (other * np.log(other)).sum()) / 80


# --- odd problems ---------------------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(st.integers(1, 30), st.integers(1, 12), st.integers(0, 10_000), st.booleans(), st.booleans())
def test_any_problem_converges_within_its_bounds(samples, classes, seed, twice, empty):
    """Fewer samples than classes, one class, duplicate rows, and classes that get nothing are all included."""
    generator = np.random.default_rng(seed)
    log_probs = log_softmax(generator.normal(size=(samples, classes)) * 3)
    if twice:
        log_probs = np.repeat(log_probs, 2, axis=0)
    prior = generator.dirichlet(np.ones(classes))
    if empty and classes > 1:
        prior[0] = 0.0
        prior /= prior.sum()
    expected = prior * len(log_probs)
    marginals = Marginals(expected * 0.8, expected * 1.3)
    result = solve(HostPasses(log_probs), marginals, tolerance=1e-4)
    assert result.converged
    sums = plan(log_probs, result).sum(0)
    slack = 2e-4 * len(log_probs)
    assert (sums >= marginals.lower - slack).all()
    assert (sums <= marginals.upper + slack).all()
    if twice:
        p = plan(log_probs, result)
        np.testing.assert_array_equal(p[::2], p[1::2])


@settings(max_examples=60)
@given(st.integers(1, 8), st.integers(0, 1000), st.sampled_from([None, 0.2, 3.0]), st.sampled_from([None, 0.5]))
def test_the_constant_is_the_best_for_every_kind_of_marginals(classes, seed, relax, max_shift):
    generator = np.random.default_rng(seed)
    expected = generator.dirichlet(np.ones(classes)) * 40
    low, high = (1.0, 1.0) if relax else (0.8, 1.3)
    marginals = Marginals(expected * low, expected * high, relax, max_shift)
    v = generator.uniform(-1, 1, classes)  # within the limit of 0.5 / eps
    log_probs = log_softmax(generator.normal(size=(40, classes)))

    def value(offsets):
        return solve_free(log_probs, offsets) + dual_of.bound_term(offsets, marginals, 0.5)

    best = dual_of.centred(v, marginals, 40, 0.5)
    for constant in np.linspace(-1, 1, 41):
        if max_shift is None or np.abs(v + constant).max() <= max_shift / 0.5 + 1e-12:
            assert value(best) <= value(v + constant) + 1e-8
    assert max_shift is None or np.abs(best).max() <= 1.0 + 1e-12


def solve_free(log_probs: np.ndarray, v: np.ndarray) -> float:
    """Summed log-normalisers."""
    exponent = log_probs / 0.5 + v
    top = exponent.max(1)
    return float((top + np.log(np.exp(exponent - top[:, None]).sum(1))).sum())


def test_equal_runs_give_equal_bits():
    log_probs = biased(500, 20)[0].astype(np.float16)
    marginals = Marginals(np.full(20, 22.5), np.full(20, 27.5))
    one, two = (solve(HostPasses(log_probs, threads=threads), marginals) for threads in (1, 2))
    assert one.v.tobytes() == two.v.tobytes()
    assert one.dual == two.dual


@pytest.mark.parametrize(
    ("marginals", "message"),
    [
        (Marginals(np.array([9.0, 9.0]), np.array([9.0, 9.0])), "ask for 18 samples"),
        (Marginals(np.array([0.0, 0.0]), np.array([4.0, 4.0])), "room for 8 of 10"),
        (Marginals(np.array([1.0, 5.0]), np.array([9.0, 9.0]), relax=1.0), "one wished count"),
        (Marginals(np.array([5.0, 5.0]), np.array([5.0, 5.0]), max_shift=0.0), "largest shift"),
        (Marginals(np.array([np.nan, 5.0]), np.array([5.0, 5.0])), "must be numbers"),
    ],
)
def test_impossible_marginals_are_refused_before_the_first_pass(marginals, message):
    class NoPasses(HostPasses):
        def sums(self, v, eps):
            raise AssertionError("a pass was made")

    with pytest.raises(ScoresError, match=message):
        solve(NoPasses(np.zeros((10, 2))), marginals)
