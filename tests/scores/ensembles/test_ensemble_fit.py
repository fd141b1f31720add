"""Temperatures and weights that are fitted on labelled validation tables of other samples."""

import numpy as np
import pytest
from scipy.optimize import minimize

from fasttrain.base.errors import ConfigError, ScoresError
from fasttrain.scores.ensembles import fit as ensemble_fit
from fasttrain.scores.ensembles import validation_tables
from fasttrain.scores.ensembles.ensemble import ensemble
from fasttrain.scores.ensembles.validation_tables import Validation
from fasttrain.scores.files.opened import OpenedTable
from fasttrain.scores.table import ScoreTable

from ..made_tables import models, softmax


def opened(tables: list[ScoreTable]) -> list[OpenedTable]:
    return [OpenedTable.of(table, f"table {number + 1}") for number, table in enumerate(tables)]


def nll(probs: np.ndarray, labels: np.ndarray) -> float:
    return float(-np.log(probs[np.arange(len(labels)), labels]).mean())


def mixed(tables: list[ScoreTable], weights: np.ndarray, space: str) -> np.ndarray:
    """(N, C) float64 probabilities of a weighted mean, plainly."""
    if space == "probs":
        return sum(w * softmax(t.scores.astype(np.float64)) for w, t in zip(weights, tables, strict=True))
    return softmax(sum(w * np.log(softmax(t.scores.astype(np.float64))) for w, t in zip(weights, tables, strict=True)))


STRENGTHS = (3.0, 0.5, 1.5)


@pytest.mark.parametrize("space", ["probs", "log_probs", "logits"])
def test_fitted_weights_are_the_minimum_on_the_simplex(space, monkeypatch):
    """Against a plain minimisation over a softmax of free numbers, with no pull towards equal weights."""
    monkeypatch.setattr(ensemble_fit, "STRENGTHS", (0.0,))
    tables = models(STRENGTHS)
    fitted = ensemble_fit.fit_weights(Validation(opened(tables), opened(models(STRENGTHS, prefix="t"))), space, ones())
    labels = tables[0].labels
    reference = minimize(lambda free: nll(mixed(tables, softmax(free), space), labels), np.zeros(3), method="BFGS")
    np.testing.assert_allclose(fitted.weights, softmax(reference.x), atol=2e-3)
    assert fitted.facts["nll_fitted"] == pytest.approx(reference.fun, abs=1e-5)
    assert fitted.facts["nll_uniform"] == pytest.approx(nll(mixed(tables, np.full(3, 1 / 3), space), labels), abs=1e-5)
    assert fitted.facts["nll_fitted"] < fitted.facts["nll_uniform"] - 0.01


def ones() -> np.ndarray:
    return np.ones(len(STRENGTHS))


def test_the_pull_towards_equal_weights_is_chosen_on_samples_left_out(monkeypatch):
    labelled = Validation(opened(models((1.0,) * 8, rows=30)), opened(models((1.0,) * 8, prefix="t")))
    facts = ensemble_fit.fit_weights(labelled, "probs", np.ones(8)).facts
    errors = facts["cross_validation"]
    assert set(errors) == {"0", "0.001", "0.01", "0.1", "1", "uniform"}
    assert errors[facts["strength"]] == min(errors.values()) < errors["0"]  # 8 weights from 30 samples are too many
    monkeypatch.setattr(ensemble_fit, "STRENGTHS", (10.0,))
    weights = ensemble_fit.fit_weights(labelled, "probs", np.ones(8)).weights
    np.testing.assert_allclose(weights, 1 / 8, atol=0.01)


@pytest.mark.parametrize("weights", ["fit", "greedy"])
@pytest.mark.parametrize("space", ["probs", "log_probs", "logits"])
def test_good_models_get_more(weights, space):
    targets = models(STRENGTHS, prefix="t", seed=5)
    got = ensemble(targets, weights=weights, space=space, validation=models(STRENGTHS))
    chosen = np.array(got.meta["weights"])
    assert chosen.sum() == pytest.approx(1)
    assert chosen[0] > chosen[2] >= chosen[1]
    equal = ensemble(targets, space=space)
    labels = targets[0].labels
    assert nll(got.probs(), labels) < nll(equal.probs(), labels)


@pytest.mark.parametrize("space", ["probs", "log_probs"])
@pytest.mark.parametrize("objective", ["nll", "accuracy"])
def test_greedy_selection_step_by_step(space, objective):
    """Against the definition: each model of each round tried in full, the best set on the way kept."""
    tables = models((1.0, 0.8, 1.2, 0.2), rows=120)
    got = ensemble(
        models((1.0, 0.8, 1.2, 0.2), prefix="t"), weights="greedy", space=space, objective=objective, validation=tables
    )
    labels, selected, best, length = tables[0].labels, [], np.inf, 0
    while len(selected) - length < 10 and len(selected) < 100:
        values = []
        for number in range(4):
            counts = np.bincount([*selected, number], minlength=4)
            probs = mixed(tables, counts / counts.sum(), space)
            values.append(nll(probs, labels) if objective == "nll" else (probs.argmax(1) != labels).mean())
        selected.append(int(np.argmin(values)))
        if min(values) < best - 1e-12:
            best, length = min(values), len(selected)
    assert got.meta["fit"]["selected"] == [selected[:length]]
    np.testing.assert_allclose(got.meta["weights"], np.bincount(selected[:length], minlength=4) / length)


def test_bags_draw_from_half_of_the_models():
    tables, targets = models((1.0, 1.1, 0.9, 1.2)), models((1.0, 1.1, 0.9, 1.2), prefix="t")
    got = ensemble(targets, weights="greedy", bags=6, validation=tables)
    selections = got.meta["fit"]["selected"]
    assert len(selections) == 6
    assert all(1 <= len(set(bag)) <= 2 for bag in selections)
    assert len({tuple(bag) for bag in selections}) > 1
    assert ensemble(targets, weights="greedy", bags=6, validation=tables).meta == got.meta  # repeats


@pytest.mark.parametrize("kind", ["logits", "log_probs", "probs"])
def test_a_fitted_temperature_undoes_a_scale(kind):
    """Scores that were drawn from their own probabilities, then multiplied by 3."""
    generator = np.random.default_rng(0)
    honest = 1.5 * generator.normal(size=(4000, 5))
    labels = np.array([generator.choice(5, p=row) for row in softmax(honest)], np.int32)
    scores = {"logits": 3 * honest, "log_probs": np.log(softmax(3 * honest)), "probs": softmax(3 * honest)}[kind]
    ids = [f"v{row}" for row in range(4000)]
    table = ScoreTable(ids, scores.astype(np.float32), list("abcde"), kind, labels)
    target = ScoreTable([f"t{row}" for row in range(4000)], table.scores, list("abcde"), kind)
    got = ensemble([target], temperatures="fit", validation=[table])
    assert got.meta["temperatures"] == [pytest.approx(3, rel=0.1)]
    np.testing.assert_allclose(got.scores, softmax(3 * honest / got.meta["temperatures"][0]), atol=1e-5)


@pytest.mark.parametrize("space", ["probs", "log_probs", "logits"])
def test_given_temperatures_divide_the_logits(space):
    first, second = models((1.0, 2.0))
    x, y = first.scores.astype(np.float64) / 2, second.scores.astype(np.float64) / 0.5
    got = ensemble([first, second], temperatures=[2.0, 0.5], space=space)
    wanted = {
        "logits": (x + y) / 2,
        "probs": (softmax(x) + softmax(y)) / 2,
        "log_probs": np.log(softmax((np.log(softmax(x)) + np.log(softmax(y))) / 2)),
    }
    np.testing.assert_allclose(got.scores, wanted[space], rtol=2e-6, atol=2e-6)


def test_unlabelled_rows_and_other_orders_of_the_validation_do_not_matter():
    tables, targets = models(STRENGTHS), models(STRENGTHS, prefix="t")
    plain = ensemble(targets, weights="fit", validation=tables).meta["weights"]
    order = np.random.default_rng(3).permutation(len(tables[1]))
    turned = ScoreTable(
        [tables[1].ids[row] for row in order],
        tables[1].scores[order][:, ::-1].copy(),
        tables[1].classes[::-1],
        "logits",
        3 - tables[1].labels[order],
        meta=tables[1].meta,
    )
    again = ensemble(targets, weights="fit", validation=[tables[0], turned, tables[2]]).meta["weights"]
    np.testing.assert_allclose(again, plain, atol=1e-6)
    more = [
        ScoreTable(
            [*table.ids, "new"],
            np.concatenate([table.scores, np.full((1, 4), 7, np.float32)]),
            table.classes,
            "logits",
            np.append(table.labels, -1),
            meta=table.meta,
        )
        for table in tables
    ]
    np.testing.assert_allclose(ensemble(targets, weights="fit", validation=more).meta["weights"], plain, atol=1e-6)


def test_more_samples_than_can_be_held_are_drawn_from(monkeypatch):
    monkeypatch.setattr(validation_tables, "HELD_ENTRIES", 3 * 4 * 50)
    got = ensemble(models(STRENGTHS, prefix="t"), weights="fit", space="logits", validation=models(STRENGTHS))
    assert got.meta["fit"]["fitted_on"] == 50
    assert got.meta["weights"][0] > got.meta["weights"][1]


def test_what_is_ensembled_is_never_fitted_on():
    targets = models(STRENGTHS, prefix="t")
    with pytest.raises(ScoresError, match=r"hold the same samples \('t0' and 299 more\)"):
        ensemble(targets, weights="fit", validation=models(STRENGTHS, prefix="t"))
    one = models(STRENGTHS)
    one[1].ids[7] = "t5"
    with pytest.raises(ScoresError, match=r"validation table 2 and table 2 hold the same samples \('t5' and 0 more\)"):
        ensemble(targets, weights="greedy", validation=one)
    renamed = models(STRENGTHS)
    renamed[0].meta["data_fingerprint"] = "t"
    with pytest.raises(ScoresError, match="the same data"):
        ensemble(targets, temperatures="fit", validation=renamed)


def test_validation_tables_that_do_not_fit():
    targets, tables = models(STRENGTHS, prefix="t"), models(STRENGTHS)
    for validation, message in (
        ([], "need validation tables"),
        (tables[:2], "2 validation tables do not fit 3"),
        ([tables[1], tables[0], tables[2]], "another model than table 1"),
        (models(STRENGTHS, labelled=False), "holds 0 labelled samples"),
        ([renamed(table) for table in tables], "has other classes than table 1 \\('d'"),
    ):
        with pytest.raises(ScoresError, match=message):
            ensemble(targets, weights="fit", validation=validation)
    with pytest.raises(ScoresError, match="nothing is fitted"):
        ensemble(targets, validation=tables)
    bad = models(STRENGTHS)
    bad[2].scores[17] = np.nan
    with pytest.raises(ScoresError, match="validation table 3: the scores of 'v17'"):
        ensemble(targets, weights="fit", validation=bad)


def renamed(table: ScoreTable) -> ScoreTable:
    return ScoreTable(table.ids, table.scores, ["a", "b", "c", "x"], "logits", table.labels, meta=table.meta)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weights": "best"}, "weights are uniform, accuracy, fit"),
        ({"factor": 2.0}, "a factor belongs to weights accuracy"),
        ({"bags": 2}, "bags belong to weights greedy"),
        ({"method": "vote", "space": "logits"}, "method vote has no space"),
        ({"method": "rank", "temperatures": [1.0]}, "method rank has no temperatures"),
        ({"method": "rank", "weights": "fit"}, "belong to method average"),
        ({"weights": "agreement"}, "belong to method vote"),
        ({"space": "votes"}, "space"),
        ({"spaces": "probs"}, "did you mean 'space'"),
    ],
)
def test_settings_without_effect_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        ensemble(models((1.0,)), **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperatures": [1.0]}, "1 temperatures do not fit 2 tables"),
        ({"temperatures": [1.0, 0.0]}, "above 0"),
        ({"temperatures": [1.0, float("nan")]}, "above 0"),
    ],
)
def test_temperatures_that_do_not_fit(settings, message):
    with pytest.raises(ScoresError, match=message):
        ensemble(models((1.0, 1.0)), **settings)
