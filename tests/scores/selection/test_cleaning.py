"""Suspected labels: those that were made wrong are found, as the confident joint says, and nothing is mixed up."""

import csv
import sys

import numpy as np
import pytest

from fasttrain.base.errors import ScoresError
from fasttrain.scores.selection.cleaning import find_suspects, write_suspects
from fasttrain.scores.table import ScoreTable

CLASSES = ["cat", "dog", "eel"]


def noisy(rows: int = 600, share: float = 0.1, seed: int = 0) -> tuple[ScoreTable, set[str]]:
    """Scores that mostly know the truth, and labels of which a share is wrong; the ids of these."""
    generator = np.random.default_rng(seed)
    true = generator.integers(0, 3, rows)
    scores = generator.normal(size=(rows, 3)).astype(np.float32)
    scores[np.arange(rows), true] += 4
    flipped = generator.random(rows) < share
    labels = np.where(flipped, (true + 1) % 3, true)
    ids = [f"s{row}" for row in range(rows)]
    return ScoreTable(ids, scores, CLASSES, "logits", labels), {ids[row] for row in np.flatnonzero(flipped)}


def part(table: ScoreTable, rows, columns=(0, 1, 2)) -> ScoreTable:
    labels = np.argsort(columns)[table.labels[rows]]
    classes = [table.classes[column] for column in columns]
    return ScoreTable([table.ids[r] for r in rows], table.scores[rows][:, columns], classes, table.kind, labels)


@pytest.fixture(autouse=True)
def _needs_cleanlab(request):
    if "missing" not in request.node.name:
        pytest.importorskip("cleanlab")


def test_labels_that_were_made_wrong_are_found(tmp_path):
    table, wrong = noisy()
    suspects = find_suspects([("t", table)])
    found = {suspects.ids[row] for row in suspects.rows}
    assert len(found & wrong) > 0.9 * len(wrong)
    assert len(found & wrong) > 0.9 * len(found)
    report = write_suspects(suspects, tmp_path / "s.csv", tmp_path / "kept.txt")
    with (tmp_path / "s.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["id"] for row in rows} == found
    assert report["suspects"] == len(rows) == sum(report["per_class"].values())
    scores = [float(row["score"]) for row in rows]
    assert scores == sorted(scores)
    for row in rows:
        number = table.ids.index(row["id"])
        assert row["label"] == CLASSES[table.labels[number]]
        assert row["suggested"] == CLASSES[int(table.scores[number].argmax())] != row["label"]
        own = table.probs(np.array([number]))[0, table.labels[number]]
        assert abs(float(row["score"]) - own) < 1e-6
    kept = (tmp_path / "kept.txt").read_text().split()
    assert sorted([*kept, *found]) == sorted(table.ids)


def test_the_confident_joint_decides():
    """Against the definition: off the diagonal by the classes' mean self-confidence (Northcutt et al., equation 1)."""
    table, _ = noisy(share=0.2, seed=1)
    probs, labels = table.probs(), table.labels
    thresholds = np.array([probs[labels == number, number].mean() for number in range(3)])
    confident = np.where(probs >= thresholds - 1e-6, probs, -1)
    counted = confident.max(1) >= 0
    expected = counted & (confident.argmax(1) != labels) & (probs.argmax(1) != labels)
    suspects = find_suspects([("t", table)], "confident_learning")
    assert sorted(suspects.rows) == np.flatnonzero(expected).tolist()


def test_folds_are_joined_whatever_their_order_of_classes():
    table, _ = noisy(300)
    whole = find_suspects([("t", table)])
    folds = [("a", part(table, np.arange(0, 300, 2))), ("b", part(table, np.arange(1, 300, 2), (2, 0, 1)))]
    joined = find_suspects(folds)
    assert [joined.ids[row] for row in joined.rows] == [whole.ids[row] for row in whole.rows]
    for suspects in (whole, joined):
        assert len(suspects.rows)
    by_id = dict(zip(whole.ids, whole.suggested, strict=True))
    assert all(by_id[name] == label for name, label in zip(joined.ids, joined.suggested, strict=True))


def test_samples_without_a_label_are_not_judged_and_stay(tmp_path):
    table, _ = noisy(200)
    table.labels[:50] = -1
    suspects = find_suspects([("t", table)])
    assert suspects.unlabelled == table.ids[:50]
    assert len(suspects.ids) == 150
    report = write_suspects(suspects, tmp_path / "s.csv", tmp_path / "kept.txt")
    assert report["unlabelled"] == 50
    assert set(table.ids[:50]) <= set((tmp_path / "kept.txt").read_text().split())


def test_classes_that_do_not_occur_are_no_hindrance(tmp_path):
    table, _ = noisy(300)
    wider = np.concatenate([table.scores, np.full((300, 1), -3, np.float32)], 1)
    suspects = find_suspects([("t", ScoreTable(table.ids, wider, [*CLASSES, "fox"], "logits", table.labels))])
    assert len(suspects.rows)
    assert write_suspects(suspects, tmp_path / "s.csv")["per_class"]["fox"] == 0


def test_what_cannot_be_judged_is_a_sentence():
    table, _ = noisy(60)
    rows = np.arange(60)
    unlabelled = ScoreTable(table.ids, table.scores, CLASSES, "logits")
    with pytest.raises(ScoresError, match="u holds no labels"):
        find_suspects([("u", unlabelled)])
    with pytest.raises(ScoresError, match=r"folds a and b overlap: both hold 's20' \(20 such\)"):
        find_suspects([("a", part(table, rows[:40])), ("b", part(table, rows[20:]))])
    other = ScoreTable(["x"], table.scores[:1], ["cat", "dog", "fox"], "logits", table.labels[:1])
    with pytest.raises(ScoresError, match="b has other classes than a: 'eel'"):
        find_suspects([("a", table), ("b", other)])
    with pytest.raises(ScoresError, match="not by 'guessing'"):
        find_suspects([("a", table)], "guessing")


def test_a_missing_cleanlab_is_a_sentence_with_the_command(monkeypatch):
    for name in ("cleanlab", "cleanlab.filter", "cleanlab.rank"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ScoresError, match="pip install cleanlab"):
        find_suspects([("t", noisy(30)[0])])
