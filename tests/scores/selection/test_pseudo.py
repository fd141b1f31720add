"""Pseudo-labels: which predictions are kept, what rounds and true labels do to each other, and what the file says."""

import csv
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fasttrain.base.errors import ScoresError
from fasttrain.scores.selection.pseudo import write_pseudo_labels
from fasttrain.scores.selection.rules import ClassRule, PseudoRules, read_class_rules, select
from fasttrain.scores.table import ScoreTable

CLASSES = ["cat", "dog", "eel"]


def make_table(rows: int = 60, seed: int = 0) -> ScoreTable:
    generator = np.random.default_rng(seed)
    scores = generator.normal(size=(rows, 3)).astype(np.float32) * 2
    scores[:, 0] += 1
    return ScoreTable([f"s{row}" for row in range(rows)], scores, CLASSES, "logits")


def read(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_kept_are_confidences_strictly_above_the_threshold(tmp_path):
    probs = np.array([[0.5, 0.5], [0.75, 0.25], [0.25, 0.75]], np.float32)
    table = ScoreTable(["a", "b", "c"], probs, ["cat", "dog"], "probs", np.array([-1, 0, 0]))
    out, half = tmp_path / "p.csv", PseudoRules(threshold=0.5)
    result = write_pseudo_labels(table, out, half, source="e", round_number=2)
    assert (result["samples"], result["kept"], result["per_class"]) == (3, 2, {"cat": 1, "dog": 1})
    assert result["left_out"] == {"margin": 0, "agreement": 0, "threshold": 1, "cap": 0}
    assert result["top1"] == 0.5
    assert read(out)[0] == {"id": "b", "label": "cat", "confidence": "0.75", "source": "e", "round": "2"}
    table.assigned, table.assigned_p = np.array([1, 1, 0], np.int32), np.array([0.9, 0.1, 0.2], np.float32)
    assert write_pseudo_labels(table, out, half)["per_class"] == {"cat": 0, "dog": 1}
    assert write_pseudo_labels(table, out, half, use="argmax")["kept"] == 2


def naive(rules: PseudoRules, names, ids, labels, confidence, margin) -> set[str]:
    """The rules class by class and sample by sample."""
    kept = set()
    for number, name in enumerate(names):
        rule = rules.classes.get(name, ClassRule())
        threshold = rules.threshold if rule.threshold is None else rule.threshold
        quota = rules.at_least if rule.at_least is None else rule.at_least
        cap = rules.at_most if rule.at_most is None else rule.at_most
        mine = [row for row in range(len(ids)) if labels[row] == number]
        quantile = np.quantile([confidence[row] for row in mine], rules.quantile) if rules.quantile and mine else 0
        clear = [row for row in mine if rules.min_margin is None or margin[row] >= rules.min_margin]
        ordered = sorted(clear, key=lambda row: (-confidence[row], ids[row]))
        for place, row in enumerate(ordered):
            sure = confidence[row] >= quantile
            if threshold is None:
                sure &= rules.quantile is not None
            else:
                sure &= confidence[row] > threshold
            if (sure or place < quota) and (cap is None or place < cap):
                kept.add(ids[row])
    return kept


@settings(max_examples=150)
@given(
    rows=st.integers(1, 40),
    seed=st.integers(0, 1000),
    threshold=st.one_of(st.none(), st.floats(0, 0.95)),
    quantile=st.one_of(st.none(), st.floats(0.01, 0.95)),
    quota=st.integers(1, 6),
    room=st.one_of(st.none(), st.integers(0, 5)),
    min_margin=st.one_of(st.none(), st.floats(0, 1)),
    own=st.one_of(st.none(), st.floats(0, 0.9)),
)
def test_rules_do_what_they_say(rows, seed, threshold, quantile, quota, room, min_margin, own):
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 3, rows)
    confidence = generator.integers(1, 12, rows) / 12  # with ties
    margin = generator.random(rows)
    ids = [f"s{number}" for number in generator.permutation(rows)]
    classes = {} if own is None else {"dog": ClassRule(threshold=own)}
    cap = None if room is None else quota + room
    rules = PseudoRules(threshold, quantile, quota, cap, min_margin, classes)
    chosen = select(rules, CLASSES, ids, labels, confidence, margin)
    kept = {ids[row] for row in chosen.rows}
    assert kept == naive(rules, CLASSES, ids, labels, confidence, margin)
    assert sum(chosen.left_out.values()) + len(kept) == rows
    for number, name in enumerate(CLASSES):
        count = int((labels[chosen.rows] == number).sum())
        assert chosen.short.get(name, 0) == max(0, quota - count)
    order = generator.permutation(rows)
    again = select(rules, CLASSES, [ids[row] for row in order], labels[order], confidence[order], margin[order])
    assert {ids[order[row]] for row in again.rows} == kept


def test_adsh_gives_every_class_the_share_of_the_most_frequent_one():
    labels = np.repeat([0, 1], [50, 20])
    confidence = np.concatenate([np.linspace(0.5, 1, 50), np.linspace(0.3, 0.6, 20)])
    ids = [f"s{row}" for row in range(70)]
    rules = PseudoRules(threshold=0.9, quantile="adsh")
    chosen = select(rules, CLASSES, ids, labels, confidence)
    frequent, rare = ((labels[chosen.rows] == number).sum() for number in (0, 1))
    assert frequent == (confidence[:50] > 0.9).sum() == 10
    assert rare == 4  # a fifth of 20, though all are below 0.9
    assert chosen.thresholds[1] < 0.9
    none = select(PseudoRules(threshold=0.99999, quantile="adsh"), CLASSES, ids, labels, confidence * 0.99)
    assert len(none.rows) == 0


def test_margins_are_those_to_the_best_other_class(tmp_path):
    probs = np.array([[0.6, 0.4, 0], [0.6, 0.2, 0.2], [0.1, 0.1, 0.8]], np.float32)
    table = ScoreTable(["a", "b", "c"], probs, CLASSES, "probs")
    result = write_pseudo_labels(table, tmp_path / "p.csv", PseudoRules(threshold=0.5, min_margin=0.3))
    assert [row["id"] for row in read(tmp_path / "p.csv")] == ["b", "c"]
    assert result["left_out"]["margin"] == 1
    table.assigned, table.assigned_p = np.array([0, 0, 0], np.int32), np.array([0.9, 0.9, 0.9], np.float32)
    write_pseudo_labels(table, tmp_path / "p.csv", PseudoRules(threshold=0.5, min_margin=0.0))
    assert [row["id"] for row in read(tmp_path / "p.csv")] == ["a", "b"]  # c's scores speak for another class


def test_other_tables_vote_whatever_their_order(tmp_path):
    table, generator = make_table(), np.random.default_rng(1)
    voters, expected = [], np.zeros(len(table), int)
    for number in range(3):
        scores = table.scores + generator.normal(size=table.scores.shape).astype(np.float32) * 2
        expected += scores.argmax(1) == table.argmax()
        rows, columns = generator.permutation(len(table)), generator.permutation(3)
        voters.append(
            (f"v{number}", ScoreTable([table.ids[r] for r in rows], scores[rows][:, columns],
                                      [CLASSES[c] for c in columns], "logits"))
        )  # fmt: skip
    everything = PseudoRules(threshold=0.0)
    for votes in (1, 2, 3, None):
        result = write_pseudo_labels(table, tmp_path / "p.csv", everything, agree=voters, votes=votes)
        kept = [row["id"] for row in read(tmp_path / "p.csv")]
        assert kept == [table.ids[row] for row in np.flatnonzero(expected >= (votes or 3))]
        assert result["left_out"]["agreement"] == 60 - len(kept)
    with pytest.raises(ScoresError, match="4 votes of 3 tables"):
        write_pseudo_labels(table, tmp_path / "p.csv", everything, agree=voters, votes=4)
    short = ScoreTable(table.ids[1:], table.scores[1:], CLASSES, "logits")
    with pytest.raises(ScoresError, match="short lacks the sample 's0'"):
        write_pseudo_labels(table, tmp_path / "p.csv", everything, agree=[("short", short)])
    other = ScoreTable(table.ids, table.scores, ["cat", "dog", "fox"], "logits")
    with pytest.raises(ScoresError, match="other classes"):
        write_pseudo_labels(table, tmp_path / "p.csv", everything, agree=[("other", other)])


def certain(labels: dict[str, str], confidence: float = 0.9) -> ScoreTable:
    rows = [[confidence if name == label else (1 - confidence) / 2 for name in CLASSES] for label in labels.values()]
    return ScoreTable(list(labels), np.array(rows, np.float32), CLASSES, "probs")


def test_newest_wins_and_true_labels_stay(tmp_path):
    rules, (one, two, three) = PseudoRules(threshold=0.5), (tmp_path / f"{n}.csv" for n in "123")
    (tmp_path / "true.csv").write_text("id,label\nt,eel\na,cat\nunknown,\n")
    write_pseudo_labels(certain({"a": "dog", "b": "dog", "c": "dog"}), one, rules, source="m1")
    second = certain({"b": "eel", "d": "cat", "t": "dog"})
    result = write_pseudo_labels(second, two, rules, source="m2", merge=[one], true_labels=tmp_path / "true.csv")
    assert result["round"] == 2
    assert result["conflicts"] == {"true": 2, "rounds": 1}
    assert (result["kept"], result["written"]) == (3, 5)
    found = {row["id"]: (row["label"], row["source"], row["round"]) for row in read(two)}
    assert found == {
        "t": ("eel", "true.csv", "0"),
        "a": ("cat", "true.csv", "0"),
        "c": ("dog", "m1", "1"),
        "b": ("eel", "m2", "2"),
        "d": ("cat", "m2", "2"),
    }
    assert [row["round"] for row in read(two)] == sorted(row["round"] for row in read(two))
    assert result["per_round"]["0"] == {"cat": 1, "dog": 0, "eel": 1}
    assert result["per_round"]["2"] == {"cat": 1, "dog": 0, "eel": 1}
    # The file of a round brings the true labels with it, and files may come in any order.
    third = certain({"a": "dog", "b": "cat"})
    merged = [write_pseudo_labels(third, three, rules, merge=order)["conflicts"] for order in ([one, two], [two, one])]
    labels = {row["id"]: row["label"] for row in read(three)}
    assert labels == {"t": "eel", "a": "cat", "b": "cat", "c": "dog", "d": "cat"}
    assert merged[0]["rounds"] == merged[1]["rounds"]
    assert all(row["confidence"] == "1.0" for row in read(three) if row["round"] == "0")


def test_rules_of_classes_come_from_a_file(tmp_path):
    path = tmp_path / "rules.csv"
    path.write_text("class,threshold,at_most\ncat,0.75,\ndog,,2\n")
    rules = read_class_rules(path)
    assert rules == {"cat": ClassRule(threshold=0.75), "dog": ClassRule(at_most=2)}
    labels, confidence = np.array([0, 0, 1, 1, 1]), np.array([0.7, 0.8, 0.6, 0.9, 0.8])
    chosen = select(PseudoRules(threshold=0.5, classes=rules), CLASSES, list("abcde"), labels, confidence)
    assert chosen.rows.tolist() == [1, 3, 4]
    for text, message in (
        ("cat,0.5\n", "column class and any of"),
        ("class,threshold\ncat,x\n", "line 2: threshold is a number"),
        ("class,threshold\ncat,0.5\ncat,0.6\n", "line 3: class 'cat' has rules already"),
    ):
        path.write_text(text)
        with pytest.raises(ScoresError, match=message):
            read_class_rules(path)
    with pytest.raises(ScoresError, match=r"rules of classes .* cannot be read"):
        read_class_rules(tmp_path / "absent.csv")


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"threshold": 1.5}, "below 1"),
        ({"quantile": 1.0}, "quantile is a share"),
        ({"quantile": "adsh"}, "needs --threshold"),
        ({"threshold": 0.5, "min_margin": 2.0}, "from 0 to 1"),
        ({"at_most": 5}, "nothing says which predictions of 'cat'"),
        ({"classes": {"cat": ClassRule(threshold=0.5)}}, "of 'dog' are kept \\(2 such"),
        ({"at_least": 5, "at_most": 3}, "quota of 5 and a cap of 3"),
        ({"threshold": 0.5, "classes": {"fox": ClassRule(at_most=1)}}, "'fox', which is none"),
    ],
)
def test_impossible_rules_are_sentences(tmp_path, rules, message):
    with pytest.raises(ScoresError, match=message):
        write_pseudo_labels(make_table(), tmp_path / "p.csv", PseudoRules(**rules))
    assert not (tmp_path / "p.csv").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,label\na,fox\n", "'fox' of 'a' is none of the table's 3 classes"),
        ("id,label\na,cat\na,dog\n", "twice"),
        ("name,label\na,cat\n", "columns id and label"),
        ("id,label,round\na,cat,first\n", "round does not hold numbers"),
    ],
)
def test_bad_label_files_are_sentences(tmp_path, text, message):
    (tmp_path / "old.csv").write_text(text)
    with pytest.raises(ScoresError, match=message):
        write_pseudo_labels(make_table(), tmp_path / "p.csv", PseudoRules(threshold=0.5), merge=[tmp_path / "old.csv"])
    with pytest.raises(ScoresError, match="no such file"):
        write_pseudo_labels(make_table(), tmp_path / "p.csv", PseudoRules(threshold=0.5), merge=[tmp_path / "absent"])


def test_labels_of_files_may_be_indices(tmp_path):
    (tmp_path / "true.csv").write_text("id,label\na,2\nb,-1\n")
    write_pseudo_labels(make_table(), tmp_path / "p.csv", PseudoRules(threshold=0.5), true_labels=tmp_path / "true.csv")
    first = read(tmp_path / "p.csv")[0]
    assert (first["id"], first["label"], first["round"]) == ("a", "eel", "0")
