import numpy as np
import pytest

from fasttrain.base.errors import ScoresError
from fasttrain.scores.ensembles.ensemble import ensemble
from fasttrain.scores.table import ScoreTable


def make(seed: int, order=None, **changes) -> ScoreTable:
    scores = np.random.default_rng(seed).normal(size=(7, 3)).astype(np.float32)
    rows = np.arange(7) if order is None else order
    values = {"ids": [f"s{row}" for row in rows], "scores": scores[rows], "classes": ["a", "b", "c"], "kind": "logits"}
    return ScoreTable(**{**values, **changes})


def softmax(values: np.ndarray) -> np.ndarray:
    exponentials = np.exp(values - values.max(1, keepdims=True))
    return exponentials / exponentials.sum(1, keepdims=True)


def test_the_three_spaces():
    first, second = make(1), make(2)
    x, y = first.scores.astype(np.float64), second.scores.astype(np.float64)
    got = ensemble([first, second], weights=[2.0, 1.0], space="logits")
    np.testing.assert_allclose(got.scores, 2 * x + y, rtol=1e-6)  # as given: logits are not scaled
    got = ensemble([first, second], weights=[2.0, 1.0], space="probs")
    np.testing.assert_allclose(got.scores, (2 * softmax(x) + softmax(y)) / 3, rtol=1e-6)
    got = ensemble([first, second], weights=[2.0, 1.0], space="log_probs")
    np.testing.assert_allclose(np.exp(got.scores), softmax((2 * x + y) / 3), rtol=1e-6)


def test_rows_and_columns_are_joined_by_name():
    plain = ensemble([make(1), make(2)])
    shuffled = make(2, order=np.array([3, 1, 0, 6, 5, 2, 4]))
    turned = ScoreTable(shuffled.ids, shuffled.scores[:, ::-1], ["c", "b", "a"], "logits")
    joined = ensemble([make(1), turned])
    np.testing.assert_allclose(joined.scores, plain.scores, rtol=1e-6)  # sums of a row go by its own columns
    assert joined.ids == plain.ids


def test_labels_are_joined_too_and_may_not_contradict():
    first = make(1, labels=np.array([0, -1, -1, 1, 2, 0, -1]))
    second = ScoreTable(first.ids, first.scores, ["c", "b", "a"], "logits", np.array([-1, 0, -1, 1, 0, 2, -1]))
    assert ensemble([first, second]).labels.tolist() == [0, 2, -1, 1, 2, 0, -1]
    with pytest.raises(ScoresError, match="'s0'"):
        ensemble([first, make(1, labels=np.array([1, 0, 0, 0, 0, 0, 0]))])


def test_counts_of_the_training_data_are_passed_on_where_all_models_had_the_same():
    counts = {"a": 5, "b": 3, "c": 2}
    first, second = make(1, meta={"train_counts": counts}), make(2, meta={"train_counts": dict(counts)})
    assert ensemble([first, second]).meta["train_counts"] == counts
    assert ensemble([first, make(2)]).meta["train_counts"] is None


def test_accuracy_weights_come_from_another_set():
    def measured(seed, top1, on="val"):
        meta = {"validation": {"val_top1": top1, "data_fingerprint": on}, "data_fingerprint": "test"}
        return make(seed, meta=meta)

    weights = ensemble([measured(1, 0.5), measured(2, 0.6)], weights="accuracy", factor=25).meta["weights"]
    assert weights == pytest.approx([1 / (1 + 1.2**25), 1.2**25 / (1 + 1.2**25)])
    with pytest.raises(ScoresError, match="would have seen their labels"):
        ensemble([measured(1, 0.5), measured(2, 0.6, on="test")], weights="accuracy")
    with pytest.raises(ScoresError, match="no validation top-1"):
        ensemble([make(1)], weights="accuracy")


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (lambda: make(2, order=np.arange(6)), r"table 2 lacks 's6' \(1 such\)"),
        (lambda: make(2, ids=[f"t{i}" for i in range(7)]), r"lacks 's0' \(7 such\)"),
        (lambda: make(2, classes=["a", "b", "x"]), "'c'"),
        (lambda: make(2, scores=np.full((7, 3), 1 / 3, np.float32), kind="probs"), "cannot become logits"),
    ],
)
def test_tables_that_do_not_fit_name_the_first_offender(other, message):
    with pytest.raises(ScoresError, match=message):
        ensemble([make(1), other()], space="logits")


def test_weights_that_do_not_fit():
    with pytest.raises(ScoresError, match="one a table"):
        ensemble([make(1), make(2)], weights=[1.0])
    with pytest.raises(ScoresError, match="not all 0"):
        ensemble([make(1)], weights=[0.0])


def test_a_table_may_be_missing_nothing_and_have_nothing_more():
    with pytest.raises(ScoresError, match=r"has 's6'"):
        ensemble([make(1, order=np.arange(6)), make(2)])


def test_a_weight_of_0_takes_a_table_out():
    impossible = np.full((7, 3), -np.inf, np.float32)
    impossible[:, 0] = 0
    first = make(1)
    got = ensemble([first, make(2, scores=impossible, kind="log_probs")], weights=[1.0, 0.0], space="log_probs")
    np.testing.assert_allclose(np.exp(got.scores), softmax(first.scores.astype(np.float64)), rtol=1e-5)


def test_a_probability_rounded_to_0_is_no_veto():
    certain = np.zeros((7, 3), np.float16)
    certain[:, 0] = 1
    other = np.zeros((7, 3), np.float16)
    other[:, 1] = 1
    got = ensemble([make(1, scores=certain, kind="probs"), make(2, scores=other, kind="probs")], space="log_probs")
    np.testing.assert_allclose(np.exp(got.scores)[:, :2], 0.5, atol=1e-2)


def test_a_given_validation_figure_needs_no_fingerprint():
    tables = [make(seed, meta={"validation": {"val_top1": top1}}) for seed, top1 in ((1, 0.5), (2, 0.75))]
    assert ensemble(tables, weights="accuracy").meta["weights"] == pytest.approx([0.4, 0.6])
