"""What is told of a table: the numbers, against plain NumPy."""

import numpy as np
import pytest

from fasttrain.base.errors import ScoresError
from fasttrain.scores.measures.agreement import agreement_matrix
from fasttrain.scores.measures.show import describe, look_at
from fasttrain.scores.table import ScoreTable

CLASSES = ["cat", "dog", "eel"]


def make_table(kind: str, dtype=np.float32, rows: int = 200, seed: int = 0) -> ScoreTable:
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(rows, 3)) * 2
    log_probs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    scores = {"logits": logits, "log_probs": log_probs, "probs": np.exp(log_probs)}[kind].astype(dtype)
    labels = np.where(generator.random(rows) < 0.8, generator.integers(0, 3, rows), -1)
    return ScoreTable([f"s{row}" for row in range(rows)], scores, CLASSES, kind, labels)


@pytest.mark.parametrize("kind", ["logits", "log_probs", "probs"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_figures_are_those_of_numpy(kind, dtype):
    table = make_table(kind, dtype)
    shown = look_at(table)
    told = describe(shown, rows=2)
    probs, known = table.probs(), table.labels >= 0
    right = (probs.argmax(1) == table.labels)[known]
    assert told["top1"] == right.mean()
    own = np.take_along_axis(probs[known], table.labels[known, None], 1)
    assert told["nll"] == pytest.approx(-np.log(own).mean(), rel=1e-3)
    confidence = probs.max(1)
    np.testing.assert_allclose(shown.confidence, confidence, atol=1e-3 if dtype == np.float16 else 1e-5)
    places = np.ceil(confidence[known] * 15)
    gaps = [abs((confidence[known] - right)[places == number].sum()) for number in range(1, 16)]
    assert told["ece"] == pytest.approx(sum(gaps) / known.sum(), abs=5e-3)
    assert (told["shape"], told["dtype"], told["kind"]) == ([200, 3], np.dtype(dtype).name, kind)
    assert told["bytes"] == 600 * np.dtype(dtype).itemsize
    assert told["labelled"] == known.sum()
    assert sum(told["confidence"]["counts"]) == sum(told["predicted_counts"].values()) == 200
    assert told["confidence"]["counts"][:3] == [0, 0, 0]  # of three classes the best has more than 0.3
    assert len(told["first"]) == 2


def test_a_table_without_labels_has_no_accuracy_and_extremes_are_named():
    scores = np.eye(3, dtype=np.float32)[[0, 0, 0, 1, 1]] * 5
    told = describe(look_at(ScoreTable(list("abcde"), scores, CLASSES, "logits")))
    assert not {"top1", "nll", "ece", "top1_assigned"} & told.keys()
    assert list(told["largest"].items()) == [("cat", 3), ("dog", 2), ("eel", 0)]
    assert list(told["smallest"].items()) == [("eel", 0), ("dog", 2), ("cat", 3)]


def test_a_redistributed_table_tells_of_both_labellings():
    scores = np.eye(3, dtype=np.float32)[[0, 0, 0]] * 5
    table = ScoreTable(list("abc"), scores, CLASSES, "logits", np.array([0, 1, 2]), np.array([0, 1, 1], np.int32))
    told = describe(look_at(table))
    assert (told["changed"], told["top1"], told["top1_assigned"]) == (2, 1 / 3, 2 / 3)
    assert told["assigned_counts"] == {"cat": 1, "dog": 2, "eel": 0}


def test_agreement_is_the_share_of_equal_predictions():
    one, two = make_table("logits", seed=1), make_table("logits", seed=2)
    order, columns = np.random.default_rng(0).permutation(200), [2, 0, 1]
    turned = ScoreTable(
        [two.ids[row] for row in order], two.scores[order][:, columns], [CLASSES[c] for c in columns], "logits"
    )
    matrix = agreement_matrix([("one", one), ("two", turned)])
    expected = (one.argmax() == two.argmax()).mean()
    np.testing.assert_allclose(matrix, [[1, expected], [expected, 1]])
    with pytest.raises(ScoresError, match="two lacks the sample"):
        agreement_matrix([("one", one), ("two", make_table("logits", rows=100))])
