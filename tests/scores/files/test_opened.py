"""Tables read and written in row blocks, and the check of their values."""

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest

from fasttrain.base.errors import ScoresError
from fasttrain.scores.files.arrow_arrays import to_arrow, to_numpy
from fasttrain.scores.files.opened import OpenedTable, writing
from fasttrain.scores.files.value_check import first_bad_row
from fasttrain.scores.table import ScoreTable


def table(**changes) -> ScoreTable:
    scores = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    values = {"ids": [f"s{i}" for i in range(6)], "scores": scores, "classes": list("abcd"), "kind": "logits"}
    return ScoreTable(**{**values, **changes})


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("assigned", [False, True])
def test_what_is_written_in_pieces_is_the_table(tmp_path, dtype, assigned):
    whole = table(labels=np.array([0, -1, 2, 3, 1, -1]), meta={"model": "m"})
    head = {"ids": pa.array(whole.ids), "labels": whole.labels, "classes": whole.classes, "kind": "logits"}
    with writing(tmp_path / "t.arrow", **head, meta=whole.meta, dtype=dtype, assigned=assigned) as writer:
        writer.put(slice(4, 6), whole.scores[4:])
        writer.put(slice(0, 4), whole.scores[:4])
        if assigned:
            writer.put_assigned(np.arange(6) % 4, np.linspace(0, 1, 6))
    read = ScoreTable.read(tmp_path / "t.arrow")
    np.testing.assert_array_equal(read.scores, whole.scores.astype(dtype))
    assert (read.ids, read.classes, read.kind, read.meta) == (whole.ids, whole.classes, "logits", whole.meta)
    assert read.labels.tolist() == whole.labels.tolist()
    assert not read.scores.flags.owndata  # mapped, so one batch
    assert (read.assigned is not None) is assigned
    if assigned:
        assert read.assigned.tolist() == [0, 1, 2, 3, 0, 1]
        np.testing.assert_allclose(read.assigned_p, np.linspace(0, 1, 6), rtol=1e-6)


def test_nothing_is_left_of_a_table_that_was_not_finished(tmp_path):
    head = {"ids": pa.array(["x"]), "labels": np.array([-1]), "classes": ["a"], "kind": "logits", "meta": {}}
    with pytest.raises(ScoresError), writing(tmp_path / "t.arrow", **head):
        raise ScoresError("on the way")
    assert list(tmp_path.iterdir()) == []


def test_an_opened_table_is_the_written_one(tmp_path):
    whole = table(labels=np.array([0, -1, 2, 3, 1, -1]), meta={"model": "m"})
    whole.write(tmp_path / "t.arrow")
    opened = OpenedTable.open(tmp_path / "t.arrow")
    assert opened.ids.to_pylist() == whole.ids
    assert opened.labels.tolist() == whole.labels.tolist()
    assert (opened.classes, opened.kind, opened.meta) == (whole.classes, "logits", whole.meta)
    seen = np.concatenate([opened.scores[block] for block in opened.read()])
    np.testing.assert_array_equal(seen, whole.scores)


@pytest.mark.parametrize("kind", ["logits", "log_probs", "probs"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("shape", [(1, 1), (7, 3), (40, 1000)])
def test_the_bits_say_what_the_values_say(kind, dtype, shape):
    """Against the check in floating point, with each odd value in each place."""
    generator = np.random.default_rng(1)
    good = generator.normal(size=shape)
    good = {"logits": good, "log_probs": -np.abs(good), "probs": np.abs(good) + 1e-3}[kind].astype(dtype)
    assert first_bad_row(good, kind) is None
    for odd in (np.nan, -np.nan, np.inf, -np.inf, -1e-4, -0.0, 0.0, 0.02, 1e-3, 60000.0):
        for rows in (slice(None), slice(shape[0] - 1, None)):
            for columns in (slice(None), slice(shape[1] - 1, None)):
                scores = good.copy()
                scores[rows, columns] = odd
                assert first_bad_row(scores, kind) == _reference(scores, kind), (odd, rows, columns)


def _reference(scores: np.ndarray, kind: str) -> int | None:
    for row, values in enumerate(scores.astype(np.float64)):
        bad = bool(np.isnan(values).any() or (values == np.inf).any())
        if kind == "probs":
            bad |= bool((values < 0).any() or (values == 0).all())
        else:
            bad |= bool((values == -np.inf).all())
        if kind == "log_probs":
            bad |= bool((values > float(scores.dtype.type(0.01))).any())
        if bad:
            return row
    return None


def damaged(tmp_path, kind="logits", version=1, meta=None, **columns):
    """A file as another program might write it."""
    parts = {
        "id": pa.array(["x", "y"]),
        "label": pa.array([0, None], pa.int32()),
        "scores": pa.FixedSizeListArray.from_arrays(pa.array([1.0, 2.0, 3.0, 4.0], pa.float32()), 2),
        **columns,
    }
    import json

    header = {"version": version, "classes": ["a", "b"], "kind": kind, "meta": meta or {}}
    made = pa.table(parts).replace_schema_metadata({"fasttrain": json.dumps(header)})
    with pa.OSFile(str(tmp_path / "d.arrow"), "wb") as sink, pa.ipc.new_file(sink, made.schema) as file:
        file.write_table(made)
    return tmp_path / "d.arrow"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 7}, r"d\.arrow is a score table of version 7"),
        ({"kind": "votes"}, r"d\.arrow: scores are of kind .*not 'votes'"),
        ({"id": pa.array(["x", None])}, r"d\.arrow: the sample of row 1 has no id"),
        ({"id": pa.array(["x", "x"])}, r"d\.arrow holds 1 names twice: 'x'"),
        ({"label": pa.array([0, 2], pa.int32())}, "the label 2 of 'y' is none of 0 to 1"),
        ({"label": pa.array([0, -2], pa.int32())}, "the label -2 of 'y'"),
        ({"scores": pa.array([1.0, 2.0])}, r"d\.arrow is damaged"),
        (
            {"scores": pa.FixedSizeListArray.from_arrays(pa.array([1.0, None, 3.0, 4.0], pa.float32()), 2)},
            "1 scores are null",
        ),
        ({"scores": pa.FixedSizeListArray.from_arrays(pa.array([1, 2, 3, 4], pa.int32()), 2)}, "float16 or float32"),
        ({"scores": pa.FixedSizeListArray.from_arrays(pa.array([1.0] * 6, pa.float32()), 3)}, r"d\.arrow is damaged"),
    ],
)
def test_a_bad_header_is_named_before_any_score_is_read(tmp_path, changes, message):
    with pytest.raises(ScoresError, match=message):
        OpenedTable.open(damaged(tmp_path, **changes))


def test_foreign_files_are_sentences(tmp_path):
    with pytest.raises(ScoresError, match="no such file"):
        OpenedTable.open(tmp_path / "absent.arrow")
    for content in (b"", b"ARROW1 but no"):
        (tmp_path / "x.arrow").write_bytes(content)
        with pytest.raises(ScoresError, match="is not a score table"):
            OpenedTable.open(tmp_path / "x.arrow")
    table().write(tmp_path / "t.arrow")
    data = (tmp_path / "t.arrow").read_bytes()
    (tmp_path / "t.arrow").write_bytes(data[: len(data) // 2])
    with pytest.raises(ScoresError, match=r"t\.arrow"):
        OpenedTable.open(tmp_path / "t.arrow")


@pytest.mark.parametrize(
    ("kind", "row", "message"),
    [
        ("logits", [np.nan, 1.0], "'y' are no logits"),
        ("logits", [np.inf, 1.0], "'y' are no logits"),
        ("logits", [-np.inf, -np.inf], "-inf for each class"),
        ("log_probs", [0.5, -1.0], "above 0"),
        ("probs", [-0.5, 1.5], "negative"),
        ("probs", [0.0, 0.0], "all 0"),
    ],
)
def test_bad_scores_name_the_sample(tmp_path, kind, row, message):
    first = {"logits": [0.0, -np.inf], "log_probs": [-0.5, -1.0], "probs": [0.0, 1.0]}[kind]
    flat = pa.array([*first, *row], pa.float32())
    path = damaged(tmp_path, kind, scores=pa.FixedSizeListArray.from_arrays(flat, 2))
    with pytest.raises(ScoresError, match=message):
        list(OpenedTable.open(path).read())


def test_numbers_go_both_ways():
    values = np.array([3, 1, 2, 5], np.int32)
    assert to_arrow(values).equals(pa.array(values))
    holes = to_arrow(values, np.array([True, False, True, False]))
    assert holes.to_pylist() == [3, None, 2, None]
    assert to_numpy(holes, -1).tolist() == [3, -1, 2, -1]
    assert to_numpy(holes.slice(1, 2), -1).tolist() == [-1, 2]
    assert to_numpy(pa.array(values).slice(2)).tolist() == [2, 5]
    assert to_numpy(pa.array([], pa.float32())).tolist() == []


def test_tables_are_never_whole_in_memory(tmp_path):
    """Eight tables of 24 MB and their ensemble of 48 MB, in less than one of them above the imports."""
    rows, columns = 12_000, 1000
    generator = np.random.default_rng(0)
    scores = generator.normal(size=(rows, columns)).astype(np.float16)
    made = ScoreTable([f"s{row}" for row in range(rows)], scores, [str(c) for c in range(columns)], "logits")
    made.write(tmp_path / "t.arrow")
    code = (
        "import resource, sys\n"
        "from fasttrain.scores.files import opened\n"
        "from fasttrain.scores.ensembles.ensemble import EnsembleSettings, ensemble_files\n"
        "opened.BLOCK_ENTRIES = 1 << 18\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "ensemble_files([sys.argv[1]] * 8, sys.argv[2], EnsembleSettings())\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "t.arrow"), str(tmp_path / "e.arrow")]
    used = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert used * 1024 < 24_000_000
    first = ScoreTable.read(tmp_path / "e.arrow")
    np.testing.assert_allclose(first.probs(slice(0, 5)), made.probs(slice(0, 5)), rtol=1e-5)
