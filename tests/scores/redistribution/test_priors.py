"""Priors from files, from the training data, and estimated from scores, with their guards."""

import numpy as np
import pytest

from fasttrain.base.config import load_settings
from fasttrain.base.errors import ConfigError, ScoresError
from fasttrain.scores.redistribution.calibration import fit_calibration, matched
from fasttrain.scores.redistribution.estimated_priors import estimate_bbse, estimate_mlls
from fasttrain.scores.redistribution.passes import HostPasses
from fasttrain.scores.redistribution.priors import read_prior
from fasttrain.scores.redistribution.problem import read_problem
from fasttrain.scores.redistribution.redistribute import RedistributeSettings, redistribute
from fasttrain.scores.table import ScoreTable
from tests.scores.plan_cases import log_softmax


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


# --- shifted classes ------------------------------------------------------------------------------------------------

CLASSES = 5
PRIOR = np.array([0.4, 0.3, 0.15, 0.1, 0.05])


def drawn(samples: int, prior: np.ndarray, seed: int, sharpness: float = 1.0, bias: float = 0.0, name: str = "s"):
    """A table of a model that knows the true p(x | y): calibrated for balanced classes at sharpness 1 and bias 0."""
    generator = np.random.default_rng(seed)
    labels = generator.choice(CLASSES, samples, p=prior)
    points = generator.normal(size=(samples, CLASSES))
    points[np.arange(samples), labels] += 2.0
    scores = sharpness * 2.0 * points + bias * np.arange(CLASSES)
    ids, names = [f"{name}{i}" for i in range(samples)], [f"c{i}" for i in range(CLASSES)]
    return ScoreTable(ids, scores.astype(np.float32), names, "logits", labels=labels.astype(np.int32))


def estimated(tmp_path, target: ScoreTable, validation: ScoreTable | None, **settings_):
    """Redistribution under an estimated prior; the result's meta, and the report."""
    if validation is not None:
        validation.write(tmp_path / "val.arrow")
        settings_["calibrate"] = tmp_path / "val.arrow"
    result, report = redistribute(target, RedistributeSettings(prior="estimate", **settings_))
    return result, report


BALANCED = np.full(CLASSES, 1 / CLASSES)


@pytest.mark.parametrize("estimator", ["mlls", "bbse"])
def test_shares_are_found_again(tmp_path, estimator):
    target, validation = drawn(4000, PRIOR, 1), drawn(3000, BALANCED, 2, name="v")
    validation.write(tmp_path / "val.arrow")
    settings_ = RedistributeSettings(prior="estimate", estimator=estimator, calibrate=tmp_path / "val.arrow")
    problem = read_problem(target, settings_)
    np.testing.assert_allclose(problem.shares, PRIOR, atol=0.05)
    result, report = redistribute(target, settings_)
    assert report["converged"]
    assert report["top1_after"] > report["top1_before"]
    assert result.meta["redistribution"]["known_prior_used"] is False
    assert result.meta["redistribution"]["prior_estimate"]["estimator"] == estimator
    assert result.meta["redistribution"]["max_shift"] == pytest.approx(np.log(10))


def test_a_calibration_undoes_temperature_and_bias():
    validation = drawn(6000, BALANCED, 0, sharpness=3.0, bias=1.5)
    fit = fit_calibration(matched(validation, drawn(10, BALANCED, 1, name="t")))
    assert fit.temperature == pytest.approx(3.0, rel=0.1)
    np.testing.assert_allclose(fit.bias, -0.5 * (np.arange(CLASSES) - 2), atol=0.15)
    assert fit.nll_after < fit.nll_before
    np.testing.assert_allclose(fit.shares, np.bincount(validation.labels) / 6000, atol=0.01)


def test_the_calibration_is_the_least_likelihood_of_scipy_in_float64():
    from scipy.optimize import minimize

    table = drawn(300, PRIOR, 3, sharpness=2.0)
    scores, rows = table.scores.astype(np.float64), np.arange(300)

    def objective(parameters):
        log_probs = log_softmax(parameters[0] * scores + parameters[1:])
        return (-log_probs[rows, table.labels].sum() + 0.5 * (parameters[1:] ** 2).sum()) / 300

    expected = minimize(objective, np.append(1.0, np.zeros(CLASSES)), method="BFGS", options={"gtol": 1e-8}).x
    fit = fit_calibration(table)
    assert 1 / fit.temperature == pytest.approx(expected[0], rel=1e-3)
    np.testing.assert_allclose(fit.bias, expected[1:] - expected[1:].mean(), atol=1e-3)


def test_the_estimate_is_the_em_of_the_paper():
    table = drawn(500, PRIOR, 4)
    probs, q = table.probs(), np.full(CLASSES, 1 / CLASSES)
    for _ in range(3000):
        weighted = probs * q * CLASSES
        q = (weighted / weighted.sum(1, keepdims=True)).mean(0)
    found = estimate_mlls(HostPasses(table.scores), BALANCED, 0.0, table.classes)
    assert found.converged
    np.testing.assert_allclose(found.shares, q, atol=1e-3)


def test_the_confusion_matrix_is_solved_for():
    table = drawn(1000, BALANCED, 5)
    confusion = np.zeros((CLASSES, CLASSES))
    np.add.at(confusion, (table.argmax(), table.labels), 1)
    confusion /= confusion.sum(0)
    predicted = confusion @ PRIOR * 1e6
    np.testing.assert_allclose(estimate_bbse(predicted.round().astype(int), table, 0.0).shares, PRIOR, atol=1e-5)


def test_a_class_that_collapses_stops_the_estimate():
    table = drawn(400, BALANCED, 6, sharpness=40.0, bias=3.0)
    table.scores[:, 4] -= 2000  # so sure that c4 cannot recover
    with pytest.raises(ScoresError, match=r"'c4'.*collapses"):
        redistribute(table, RedistributeSettings(prior="estimate", uncalibrated=True, smoothing=0.0))


def test_a_confusion_matrix_that_cannot_be_inverted_is_refused():
    table = drawn(300, BALANCED, 7)
    table.scores[:, 1] = -50  # never predicted
    with pytest.raises(ScoresError, match="near to singular"):
        estimate_bbse(np.full(CLASSES, 20), table, 1.0)
    lacking = drawn(300, np.array([0.5, 0.5, 0, 0, 0]), 8)
    with pytest.raises(ScoresError, match="no sample of class 'c2'"):
        estimate_bbse(np.full(CLASSES, 20), lacking, 1.0)


def test_a_negative_share_is_refused():
    table = drawn(2000, BALANCED, 9)
    with pytest.raises(ScoresError, match="is negative"):
        estimate_bbse(np.array([500, 0, 0, 0, 0]), table, 1.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prior": "estimate"}, "calibrate"),
        ({"prior": "estimate", "estimator": "bbse", "uncalibrated": True}, "bbse needs"),
        ({"prior": "estimate", "calibrate": "v.arrow", "uncalibrated": True}, "give one"),
        ({"smoothing": 2.0}, "smoothing belong to prior estimate"),
        ({"relax": 1.0, "equality": True}, "exact .* or wished"),
        ({"relax": 1.0, "upper": "2x"}, "relax leaves no room for upper"),
    ],
)
def test_guards_of_the_settings(changes, message):
    with pytest.raises(ConfigError, match=message):
        load_settings(RedistributeSettings, changes)


def test_calibration_tables_that_do_not_fit_are_refused(tmp_path):
    target = drawn(50, PRIOR, 10)
    unlabelled = drawn(50, PRIOR, 11, name="v")
    unlabelled.labels[:] = -1
    other = drawn(50, PRIOR, 12, name="v")
    other.classes = ["c0", "c1", "c2", "c3", "x"]
    same_data = drawn(50, PRIOR, 13, name="v")
    target.meta["data_fingerprint"] = same_data.meta["data_fingerprint"] = "f"
    for table, message in (
        (drawn(50, PRIOR, 13), "50 samples of the table itself .'s0'"),
        (unlabelled, "no true labels"),
        (other, "other classes than the table .'c4'"),
        (same_data, "the very data"),
    ):
        with pytest.raises(ScoresError, match=message):
            estimated(tmp_path, target, table)


def test_calibration_classes_may_come_in_another_order(tmp_path):
    target, validation = drawn(500, PRIOR, 14), drawn(800, BALANCED, 15, name="v")
    order = [3, 1, 4, 0, 2]
    back = np.argsort(order).astype(np.int32)
    turned = ScoreTable(
        validation.ids,
        validation.scores[:, order],
        [validation.classes[column] for column in order],
        "logits",
        labels=back[validation.labels],
    )
    straight, _ = estimated(tmp_path, target, validation)
    other, _ = estimated(tmp_path, target, turned)
    np.testing.assert_array_equal(straight.assigned, other.assigned)


def test_the_train_prior_is_that_of_the_table():
    table = drawn(300, PRIOR, 16)
    with pytest.raises(ScoresError, match="does not say how many"):
        redistribute(table, RedistributeSettings(prior="train"))
    counts = dict(zip(table.classes, [40, 30, 15, 10, 5], strict=True))
    given, _ = redistribute(table, RedistributeSettings(), counts=counts)
    table.meta["train_counts"] = counts
    result, _ = redistribute(table, RedistributeSettings(prior="train"))
    np.testing.assert_array_equal(result.assigned, given.assigned)
    assert result.meta["redistribution"]["known_prior_used"] is False
    assert given.meta["redistribution"]["known_prior_used"] is True


def test_the_largest_shift_holds_unless_it_is_lifted(tmp_path):
    target, validation = drawn(2000, np.array([0.96, 0.01, 0.01, 0.01, 0.01]), 17), drawn(2000, BALANCED, 18, name="v")
    _, limited = estimated(tmp_path, target, validation, max_shift=0.5)
    _, free = estimated(tmp_path, target, validation, max_shift=np.inf)
    assert limited["capped"] > 0
    assert "capped" not in free
    assert limited["marginal_error"] > free["marginal_error"]
