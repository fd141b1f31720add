import json

import numpy as np
import pyarrow as pa
import pytest

from fasttrain.base.errors import ScoresError
from fasttrain.scores.table import ScoreTable


def make(kind="logits", rows=6, columns=4, dtype=np.float32, **changes) -> ScoreTable:
    scores = np.random.default_rng(0).normal(size=(rows, columns)).astype(dtype)
    if kind == "probs":
        scores = (np.exp(scores) / np.exp(scores).sum(1, keepdims=True)).astype(dtype)
    values = {"ids": [f"s{i}" for i in range(rows)], "scores": scores, "classes": [f"c{i}" for i in range(columns)]}
    return ScoreTable(**{**values, "kind": kind, **changes})


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_a_table_round_trips_and_is_mapped(tmp_path, dtype):
    table = make(
        dtype=dtype, labels=np.array([0, 1, -1, 3, 2, -1]), meta={"model": "m", "validation": {"val_top1": 0.5}}
    )
    table.assigned, table.assigned_p = np.arange(6, dtype=np.int32) % 4, np.linspace(0, 1, 6, dtype=np.float32)
    table.write(tmp_path / "t.arrow")
    read = ScoreTable.read(tmp_path / "t.arrow")
    assert (read.ids, read.classes, read.kind, read.meta) == (table.ids, table.classes, table.kind, table.meta)
    for name in ("scores", "labels", "assigned", "assigned_p"):
        np.testing.assert_array_equal(getattr(read, name), getattr(table, name))
    assert read.scores.dtype == dtype
    assert not read.scores.flags.owndata
    assert not read.scores.flags.writeable


def test_the_file_is_the_documented_arrow_layout(tmp_path):
    make(labels=np.array([0, -1, 1, 2, 3, 0])).write(tmp_path / "t.arrow")
    table = pa.ipc.open_file(str(tmp_path / "t.arrow")).read_all()
    assert table.schema.field("id").type == pa.string()
    assert table.schema.field("label").type == pa.int32()
    assert table.schema.field("scores").type == pa.list_(pa.float32(), 4)
    assert table["label"].null_count == 1
    assert json.loads(table.schema.metadata[b"fasttrain"])["kind"] == "logits"


@pytest.mark.parametrize("kind", ["logits", "probs"])
def test_probabilities_sum_to_one(kind):
    table = make(kind)
    np.testing.assert_allclose(table.probs().sum(1), 1, rtol=1e-12)
    np.testing.assert_allclose(np.exp(table.log_probs(np.array([3, 1]))), table.probs()[[3, 1]])


def test_accuracy_counts_labelled_samples_only():
    table = make(labels=np.array([0, 1, -1, -1, -1, -1]))
    assert table.accuracy(np.array([0, 0, 3, 3, 3, 3])) == 0.5
    assert make().accuracy(np.zeros(6, int)) is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ids": ["a", "b", "a", "c", "d", "b"]}, r"2 names twice: 'a', 'b'"),
        ({"classes": ["x", "y", "x", "z"]}, "'x'"),
        ({"classes": ["x", "y", "z"]}, "do not fit scores of shape"),
        ({"kind": "votes"}, "not 'votes'"),
        ({"labels": np.array([0, 1, 2, 3, 4, 0])}, "0 to 3"),
        ({"scores": np.full((6, 4), np.nan, np.float32)}, "6 samples have scores that are no logits"),
        ({"scores": np.full((6, 4), -np.inf, np.float32), "kind": "log_probs"}, "s0"),
        ({"scores": np.full((6, 4), -0.1, np.float32), "kind": "probs"}, "negative"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(changes, message):
    with pytest.raises(ScoresError, match=message):
        make(**changes)


def test_foreign_files_are_sentences(tmp_path):
    with pytest.raises(ScoresError, match="no such file"):
        ScoreTable.read(tmp_path / "absent.arrow")
    (tmp_path / "x.arrow").write_bytes(b"ARROW1 but no")
    with pytest.raises(ScoresError, match="not a score table"):
        ScoreTable.read(tmp_path / "x.arrow")
    make().write(tmp_path / "t.arrow")
    data = (tmp_path / "t.arrow").read_bytes()
    (tmp_path / "t.arrow").write_bytes(data[: len(data) // 2])
    with pytest.raises(ScoresError, match=r"t\.arrow"):
        ScoreTable.read(tmp_path / "t.arrow")


def test_assigned_labels_are_used_where_they_are():
    table = make()
    np.testing.assert_array_equal(table.predictions(), table.argmax())
    with pytest.raises(ScoresError, match="fasttrain redistribute"):
        table.predictions("assigned")
    table.assigned = np.zeros(6, np.int32)
    assert table.predictions() is table.assigned


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"assigned": np.array([0, 1, 2, 3, 4, 0])}, "assigned labels must be 0 to 3"),
        ({"assigned": np.array([0, 1, -1, 3, 0, 0])}, "assigned labels must be 0 to 3"),
        ({"scores": np.full((6, 4), 2.0, np.float32), "kind": "log_probs"}, "are they logits"),
        ({"scores": np.zeros((6, 4), np.float32), "kind": "probs"}, "all-zero"),
        ({"scores": np.full((6, 4), np.inf, np.float16)}, "infinite"),
    ],
)
def test_more_that_does_not_fit(changes, message):
    with pytest.raises(ScoresError, match=message):
        make(**changes)


def test_checks_go_through_every_block(monkeypatch):
    monkeypatch.setattr("fasttrain.scores.table.BLOCK_ENTRIES", 8)
    scores = np.zeros((6, 4), np.float32)
    scores[5, 3] = np.nan
    with pytest.raises(ScoresError, match="s5"):
        make(scores=scores)
    assert [(rows.start, rows.stop) for rows in make().row_blocks()] == [(0, 2), (2, 4), (4, 6)]
