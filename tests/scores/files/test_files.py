"""Scores in and out: CSV, NumPy, pickles, submissions."""

import gzip
import json
import os
import pickle
import zipfile

import numpy as np
import pytest

from fasttrain.base.errors import ScoresError
from fasttrain.scores.files.exports import export_scores
from fasttrain.scores.files.imports import import_scores
from fasttrain.scores.files.submit import write_submission
from fasttrain.scores.table import ScoreTable

SCORES = np.array([[2.0, 1.0, 0.1], [0.0, 0.5, 3.25], [1.0, 1.5, 0.0]], np.float32)
IDS = ["0001.jpg", "0002.jpg", "x, y.jpg"]


@pytest.fixture
def table() -> ScoreTable:
    return ScoreTable(IDS, SCORES, ["cat", "dog", "eel"], "logits", np.array([0, 2, -1]))


@pytest.mark.parametrize("name", ["s.csv", "s.csv.gz"])
@pytest.mark.parametrize("extra", [False, True])
def test_csv(tmp_path, name, extra):
    head = "imgs,pred,0,1,2\n" if extra else "imgs,0,1,2\n"
    middle = "cat," if extra else ""
    body = "".join(f'"{i}",{middle}{",".join(map(str, row))}\n' for i, row in zip(IDS, SCORES, strict=True))
    opener = gzip.open if name.endswith("gz") else open
    with opener(tmp_path / name, "wt") as file:
        file.write(head + body)
    (tmp_path / "classes.txt").write_text("cat\ndog\neel\n")
    table = import_scores(tmp_path / name, "logits", classes=tmp_path / "classes.txt")
    assert table.ids == IDS
    assert table.classes == ["cat", "dog", "eel"]
    np.testing.assert_array_equal(table.scores, SCORES)


def test_ids_of_digits_keep_their_zeros(tmp_path):
    (tmp_path / "s.csv").write_text("id,a,b\n0001,1,2\n0002,3,4\n")
    assert import_scores(tmp_path / "s.csv", "logits").ids == ["0001", "0002"]


@pytest.mark.parametrize(
    "shape",
    [
        lambda: dict(zip(IDS, SCORES, strict=True)),
        lambda: list(zip(IDS, SCORES.tolist(), strict=True)),
        lambda: [{"filename": i, "pred_scores": s} for i, s in zip(IDS, SCORES, strict=True)],
        lambda: [{"name": i, "scores": np.float64(s)} for i, s in zip(IDS, SCORES, strict=True)],
    ],
)
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_pickles_of_the_usual_shapes(tmp_path, shape, protocol):
    (tmp_path / "s.pkl").write_bytes(pickle.dumps(shape(), protocol))
    table = import_scores(tmp_path / "s.pkl", "logits")
    assert table.ids == IDS
    np.testing.assert_array_equal(table.scores, SCORES)


def test_code_in_a_pickle_is_never_run(tmp_path):
    marker = tmp_path / "ran"

    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {marker}",)

    for content in ({"a": Evil()}, [("a", Evil())]):
        (tmp_path / "evil.pkl").write_bytes(pickle.dumps(content))
        with pytest.raises(ScoresError, match="system"):
            import_scores(tmp_path / "evil.pkl", "logits")
    assert not marker.exists()


def test_numpy_files(tmp_path):
    np.save(tmp_path / "s.npy", SCORES)
    with pytest.raises(ScoresError, match="--ids"):
        import_scores(tmp_path / "s.npy", "logits")
    (tmp_path / "ids.txt").write_text("\n".join(IDS))
    assert import_scores(tmp_path / "s.npy", "logits", ids=tmp_path / "ids.txt").ids == IDS
    np.save(tmp_path / "o.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(ScoresError, match=r"o\.npy"):
        import_scores(tmp_path / "o.npy", "logits")


def test_labels_by_name_or_index(tmp_path, table):
    export_scores(table, tmp_path / "s.csv")
    (tmp_path / "l.csv").write_text("id,label\n0002.jpg,eel\n0001.jpg,cat\n")
    assert import_scores(tmp_path / "s.csv", "logits", labels=tmp_path / "l.csv").labels.tolist() == [0, 2, -1]
    (tmp_path / "l.csv").write_text("id,label\n0002.jpg,2\n0001.jpg,0\n")
    assert import_scores(tmp_path / "s.csv", "logits", labels=tmp_path / "l.csv").labels.tolist() == [0, 2, -1]
    for text, message in (("id,label\n0001.jpg,fox\n", "'fox'"), ("id,label\nother,cat\n", "none of the samples")):
        (tmp_path / "l.csv").write_text(text)
        with pytest.raises(ScoresError, match=message):
            import_scores(tmp_path / "s.csv", "logits", labels=tmp_path / "l.csv")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\nx,1\n", "first column must be the id"),
        ("id,a,b\nx,1,\n", "'x' in column 'b' is missing"),
        ("id,a,b\nx,1,two\n", "'b' does not hold numbers"),
        ("id,a,b\nx,1\n", "cannot be read as CSV"),
        ("id,a\nx,1\nx,2\n", "'x'"),
    ],
)
def test_bad_csv_files_are_sentences(tmp_path, text, message):
    (tmp_path / "s.csv").write_text(text)
    with pytest.raises(ScoresError, match=message):
        import_scores(tmp_path / "s.csv", "logits")
    with pytest.raises(ScoresError, match="no known kind"):
        (tmp_path / "s.txt").write_text(text)
        import_scores(tmp_path / "s.txt", "logits")


@pytest.mark.parametrize("name", ["t.csv", "t.npz", "t.pkl"])
def test_exports_come_back_bit_for_bit(tmp_path, table, name):
    export_scores(table, tmp_path / name)
    back = import_scores(tmp_path / name, "logits")
    assert back.ids == table.ids
    np.testing.assert_array_equal(back.scores, table.scores)


def test_exports_without_header_zipped_and_as_json(tmp_path, table):
    export_scores(table, tmp_path / "t.csv", header=False)
    assert (tmp_path / "t.csv").read_text().startswith("0001.jpg,2.0,1.0")
    export_scores(table, tmp_path / "t.json.zip")
    with zipfile.ZipFile(tmp_path / "t.json.zip") as archive:
        assert json.loads(archive.read("t.json")) == dict(zip(IDS, [0, 2, 1], strict=True))
    with pytest.raises(ScoresError, match="no known format"):
        export_scores(table, tmp_path / "t.xml")


def test_submissions(tmp_path, table):
    write_submission(table, tmp_path / "s.csv")
    assert (tmp_path / "s.csv").read_text() == 'id,label\n0001.jpg,cat\n0002.jpg,eel\n"x, y.jpg",dog\n'
    write_submission(table, tmp_path / "s.csv", columns=("imgs", "pred"))
    assert (tmp_path / "s.csv").read_text().startswith("imgs,pred\n0001.jpg,cat\n")
    table.assigned = np.array([1, 1, 1], np.int32)
    assert write_submission(table, tmp_path / "s.json", file_format="json")["use"] == "assigned"
    assert set(json.loads((tmp_path / "s.json").read_text()).values()) == {1}
    write_submission(table, tmp_path / "s.csv.zip", use="argmax", label_as="index", header=False)
    with zipfile.ZipFile(tmp_path / "s.csv.zip") as archive:
        assert archive.read("s.csv").decode() == '0001.jpg,0\n0002.jpg,2\n"x, y.jpg",1\n'


def test_a_submission_by_file_names_a_line_each(tmp_path, table):
    table.ids = ["test/a.jpg", "test/b/b.jpg", "c.jpg"]
    write_submission(table, tmp_path / "prediction.json", file_format="json", names="file", indent=4)
    wanted = '{\n    "a.jpg": 0,\n    "b.jpg": 2,\n    "c.jpg": 1\n}'
    assert (tmp_path / "prediction.json").read_text() == wanted
    write_submission(table, tmp_path / "s.csv", names="file", header=False)
    assert (tmp_path / "s.csv").read_text() == "a.jpg,cat\nb.jpg,eel\nc.jpg,dog\n"
    table.ids = ["one/a.jpg", "b.jpg", "two/a.jpg"]
    with pytest.raises(ScoresError, match=r"'one/a.jpg' and 'two/a.jpg' have the same file name"):
        write_submission(table, tmp_path / "s.csv", names="file")
    with pytest.raises(ScoresError, match=r"an indent belongs to format json"):
        write_submission(table, tmp_path / "s.csv", indent=4)


def test_the_published_pickle_shapes(tmp_path):
    """A list of mappings with single numbers beside the scores, a list of triples, and arrays under names."""
    probs = (np.exp(SCORES) / np.exp(SCORES).sum(1, keepdims=True)).astype(np.float32)
    mappings = [
        {"filename": i, "scores": p, "pred_score": p.max(), "pred_label": 1, "pred_class": "0001"}
        for i, p in zip(IDS, probs, strict=True)
    ]
    triples = [(i, "0001", p) for i, p in zip(IDS, probs, strict=True)]
    for content in (mappings, triples, {"ids": np.array(IDS), "scores": probs}):
        (tmp_path / "s.pkl").write_bytes(pickle.dumps(content))
        table = import_scores(tmp_path / "s.pkl", "probs")
        assert table.ids == IDS
        np.testing.assert_array_equal(table.scores, probs)


def test_columns_follow_the_names_in_the_header(tmp_path):
    (tmp_path / "s.csv").write_text("id,dog,cat\nx,1,2\n")
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    table = import_scores(tmp_path / "s.csv", "logits", classes=tmp_path / "classes.txt")
    assert table.classes == ["cat", "dog"]
    np.testing.assert_array_equal(table.scores, [[2, 1]])
    (tmp_path / "classes.txt").write_text("cat\neel\n")
    with pytest.raises(ScoresError, match="'dog'"):
        import_scores(tmp_path / "s.csv", "logits", classes=tmp_path / "classes.txt")


def test_true_labels_beside_the_scores_are_kept(tmp_path, table):
    (tmp_path / "s.csv").write_text("imgs,label,0,1\nx,1,1,2\ny,0,1,2\n")
    assert import_scores(tmp_path / "s.csv", "logits").labels.tolist() == [1, 0]
    for name in ("t.csv", "t.csv.gz", "t.npz"):
        export_scores(table, tmp_path / name)
        back = import_scores(tmp_path / name, "logits")
        assert back.labels.tolist() == [0, 2, -1]
        assert back.classes == table.classes


def test_a_class_may_be_called_target(tmp_path):
    (tmp_path / "s.csv").write_text("id,bow,target\nx,1,2\n")
    assert import_scores(tmp_path / "s.csv", "logits").classes == ["bow", "target"]


def test_a_validation_figure_can_be_given(tmp_path, table):
    export_scores(table, tmp_path / "s.csv")
    imported = import_scores(tmp_path / "s.csv", "logits", val_top1=0.75)
    assert imported.meta["validation"] == {"val_top1": 0.75}
    with pytest.raises(ScoresError, match="at most 1"):
        import_scores(tmp_path / "s.csv", "logits", val_top1=75.0)


def test_damaged_files_are_sentences(tmp_path, table):
    export_scores(table, tmp_path / "t.npz")
    (tmp_path / "t.npz").write_bytes((tmp_path / "t.npz").read_bytes()[:-40])
    with pytest.raises(ScoresError, match=r"t\.npz cannot be read"):
        import_scores(tmp_path / "t.npz", "logits")
    (tmp_path / "classes.txt").write_bytes(b"caf\xe9\n")
    export_scores(table, tmp_path / "t.csv")
    with pytest.raises(ScoresError, match="not UTF-8"):
        import_scores(tmp_path / "t.csv", "logits", classes=tmp_path / "classes.txt")


def test_archives_name_their_content_and_repeat(tmp_path, table):
    assert write_submission(table, tmp_path / "a.csv", zipped=True)["out"].endswith("a.csv.zip")
    write_submission(table, tmp_path / "b.zip", file_format="json", label_as="name")
    with zipfile.ZipFile(tmp_path / "b.zip") as archive:
        assert json.loads(archive.read("b.json"))["0001.jpg"] == "cat"
    before = (tmp_path / "a.csv.zip").read_bytes()
    write_submission(table, tmp_path / "a.csv.zip")
    assert (tmp_path / "a.csv.zip").read_bytes() == before
