"""Figures of a score table, beside those that scikit-learn computes."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, log_loss, top_k_accuracy_score

from fasttrain.base.errors import ScoresError
from fasttrain.scores.measures.evaluate import evaluate
from fasttrain.scores.table import ScoreTable


@pytest.fixture
def table() -> ScoreTable:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 8, 200).astype(np.int32)
    scores = generator.normal(size=(200, 8)).astype(np.float32)
    scores[np.arange(200), labels] += 1
    return ScoreTable([str(row) for row in range(200)], scores, list("abcdefgh"), "logits", labels)


def test_figures_are_those_of_scikit_learn(table: ScoreTable) -> None:
    found, probs = evaluate(table, classes=True), table.probs()
    assert found["samples"] == 200
    assert found["top1"] == pytest.approx(accuracy_score(table.labels, table.argmax()))
    assert found["top5"] == pytest.approx(top_k_accuracy_score(table.labels, probs, k=5))
    assert found["loss"] == pytest.approx(log_loss(table.labels, probs))
    assert found["macro_f1"] == pytest.approx(f1_score(table.labels, table.argmax(), average="macro"))
    each = f1_score(table.labels, table.argmax(), average=None)
    assert [entry["f1"] for entry in found["per_class"]] == pytest.approx(each.tolist())


def test_labels_from_elsewhere_count_where_they_are_known(table: ScoreTable) -> None:
    labels = np.where(np.arange(200) < 50, table.labels, -1).astype(np.int32)
    found = evaluate(table, labels)
    assert found["samples"] == 50
    assert found["top1"] == pytest.approx(accuracy_score(table.labels[:50], table.argmax()[:50]))


def test_assigned_labels_are_measured_beside_the_highest_scores(table: ScoreTable) -> None:
    table.assigned = table.labels.copy()
    found = evaluate(table, classes=True)
    assert found["top1"] < found["top1_assigned"] == found["macro_f1_assigned"] == 1
    assert all(entry["accuracy"] == 1 for entry in found["per_class"])


def test_without_labels_there_is_nothing_to_measure(table: ScoreTable) -> None:
    with pytest.raises(ScoresError, match="--labels"):
        evaluate(table, np.full(200, -1, np.int32))
