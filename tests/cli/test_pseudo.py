"""The commands ``pseudo`` and ``clean``, and that their files lead to another round of training."""

import csv

import numpy as np
import pytest

from fasttrain.scores.table import ScoreTable

from .called import fasttrain


@pytest.fixture
def table(colour_tree, tmp_path):
    """Scores of the unlabelled copies of all images, one of a flat folder; three out of four are sure."""
    ids, scores = [], []
    (tmp_path / "new").mkdir()
    for number, path in enumerate(sorted(colour_tree.rglob("*.jpg"))):
        ids.append(f"{path.parent.name}_{path.name}")
        (tmp_path / "new" / ids[-1]).write_bytes(path.read_bytes())
        column = ["blue", "green", "red"].index(path.parent.name)
        scores.append(np.eye(3, dtype=np.float32)[column] * (1 if number % 4 == 0 else 8))
    ScoreTable(ids, np.stack(scores), ["blue", "green", "red"], "logits").write(tmp_path / "t.arrow")
    return tmp_path / "t.arrow"


def test_another_round_is_built_from_true_and_pseudo_labels(table, colour_tree, tmp_path):
    labels = tmp_path / "labels.csv"
    report = fasttrain("pseudo", table, "--threshold", "0.9", "--out", labels)
    assert (report["kept"], report["per_round"]) == (18, {"1": {"blue": 6, "green": 6, "red": 6}})
    fasttrain("build", tmp_path / "new", tmp_path / "pseudo.beton", "--labels", labels, "--ids", labels)
    both = fasttrain("build", colour_tree, tmp_path / "pseudo.beton", tmp_path / "both.beton")
    assert (both["samples"], both["classes"]) == (24 + 18, 3)
    options = ("--model", "test_resnet", "--size", "32", "--epochs", "1", "--batch-size", "6", "--device", "cpu")
    fasttrain("train", "--data", tmp_path / "both.beton", *options, "--out", tmp_path / "run")


def test_options_reach_the_rules(table, tmp_path):
    out = ("--out", tmp_path / "p.csv")
    assert fasttrain("pseudo", table, *out, "--top", "3")["per_class"] == {"blue": 3, "green": 3, "red": 3}
    assert fasttrain("pseudo", table, *out, "--class-quantile", "0.5")["kept"] == 18  # 18 confidences are equal
    filled = fasttrain("pseudo", table, *out, "--threshold", "0.9", "--at-least", "8")
    assert (filled["kept"], filled["filled"]) == (24, 6)
    (tmp_path / "rules.csv").write_text("class,at_most\nred,1\n")
    capped = fasttrain("pseudo", table, *out, "--threshold", "0.9", "--per-class", tmp_path / "rules.csv")
    assert capped["per_class"] == {"blue": 6, "green": 6, "red": 1}
    voted = ("--agree", table, "--agree", table, "--votes", "1", "--min-margin", "0.5", "--merge", tmp_path / "p.csv")
    merged = fasttrain("pseudo", table, "--out", tmp_path / "q.csv", "--threshold", "0.5", *voted)
    assert (merged["kept"], merged["written"], merged["round"]) == (18, 18, 2)
    with (tmp_path / "q.csv").open() as file:
        assert {row["round"] for row in csv.DictReader(file)} == {"2"}


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        ((), 1, "nothing says which predictions"),
        (("--top", "3", "--threshold", "0.5"), 2, "--top"),
        (("--threshold", "0.5", "--votes", "2"), 2, "--votes"),
        (("--class-quantile", "half"), 2, "--class-quantile"),
    ],
)
def test_rules_that_say_nothing_are_refused(table, tmp_path, options, code, message):
    failed = fasttrain("pseudo", table, "--out", tmp_path / "p.csv", *options, ok=False)
    assert failed["code"] == code
    assert message in failed["error"]
    assert not (tmp_path / "p.csv").exists()


def test_a_data_set_is_built_without_the_suspects(colour_tree, tmp_path):
    pytest.importorskip("cleanlab")
    ids = sorted(f"{path.parent.name}/{path.name}" for path in colour_tree.rglob("*.jpg"))
    labels = np.array([["blue", "green", "red"].index(name.split("/")[0]) for name in ids])
    scores = np.eye(3, dtype=np.float32)[labels] * 6
    scores[3] = [0, 6, 0]  # a blue one that looks green
    for fold in (0, 1):
        rows = np.arange(fold, 24, 2)
        named = [ids[row] for row in rows]
        table = ScoreTable(named, scores[rows], ["blue", "green", "red"], "logits", labels[rows])
        table.write(tmp_path / f"{fold}.arrow")
    folds = (tmp_path / "0.arrow", tmp_path / "1.arrow")
    report = fasttrain("clean", *folds, "--out", tmp_path / "s.csv", "--kept", tmp_path / "kept.txt")
    assert (report["samples"], report["suspects"]) == (24, 1)
    with (tmp_path / "s.csv").open() as file:
        [row] = csv.DictReader(file)
    assert (row["id"], row["label"], row["suggested"]) == (ids[3], "blue", "green")
    built = fasttrain("build", colour_tree, tmp_path / "clean.beton", "--ids", tmp_path / "kept.txt")
    assert built["samples"] == 23
