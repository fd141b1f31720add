"""Lists as people and published systems write them: JSON, tables, text; class names out of numbers and names."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fasttrain.base.errors import SourceError
from fasttrain.beton_build.images import IMAGE_SUFFIXES
from fasttrain.beton_build.lists import read_text_list
from fasttrain.beton_build.sources import read_source


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with the files a.jpg … f.jpg."""
    folder = tmp_path / "root"
    folder.mkdir()
    for name in "abcdef":
        (folder / f"{name}.jpg").write_bytes(b"x")
    return folder


def put(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def nico(path: str, label: int, name: str) -> dict[str, Any]:
    return {"image_path": path, "label": label, "label_name": name, "domain": 3}


# ---- JSON -----------------------------------------------------------------------------------------------------------


def test_json_with_numbers_and_names(root: Path) -> None:
    train = put(root / "train.json", [nico("b.jpg", 2, "car"), nico("a.jpg", 0, "zebra"), nico("c.jpg", 1, "dog")])
    samples = read_source(train)
    assert samples.ids == ["b.jpg", "a.jpg", "c.jpg"] and samples.origins[0] == root / "b.jpg"
    assert samples.class_names == ["zebra", "dog", "car"] and samples.labels.tolist() == [2, 0, 1]
    test = put(root / "test.json", [{"image_path": "d.jpg", "image_name": "x-d.jpg"}])
    assert read_source(test).labels.tolist() == [-1]
    both = read_source([train, test])
    assert both.class_names == ["zebra", "dog", "car"] and both.labels.tolist() == [2, 0, 1, -1]


def test_classes_that_no_object_names_are_called_by_their_number(root: Path) -> None:
    samples = read_source(put(root / "l.json", [nico("a.jpg", 0, "x"), nico("b.jpg", 2, "y"), nico("c.jpg", 0, "x")]))
    assert samples.class_names == ["x", "1", "y"] and samples.labels.tolist() == [0, 2, 0]


def test_json_with_numbers_and_names_that_contradict(root: Path) -> None:
    two_names = put(root / "l.json", [nico("a.jpg", 1, "x"), nico("b.jpg", 1, "y")])
    with pytest.raises(SourceError, match="contradicts itself: class 1 is called 'x' and 'y'"):
        read_source(two_names)
    two_numbers = put(root / "l.json", [nico("a.jpg", 1, "x"), nico("b.jpg", 2, "x")])
    with pytest.raises(SourceError, match="'x' is class 1 and class 2"):
        read_source(two_numbers)
    with pytest.raises(SourceError, match="names some of its classes, but not class 2"):
        read_source(put(root / "l.json", [nico("a.jpg", 1, "x"), {**nico("b.jpg", 2, ""), "label_name": None}]))
    assert read_source(two_names, label_column="label").class_names == ["0", "1", "2"]


def test_labels_by_name_in_json(root: Path) -> None:
    objects = [{"file_name": "a.jpg", "class": "y"}, {"file_name": "b.jpg", "class": None}]
    samples = read_source(put(root / "l.json", objects))
    assert samples.class_names == ["y"] and samples.labels.tolist() == [0, -1]
    lines = "".join(json.dumps({"p": f"{name}.jpg", "q": number}) + "\n\n" for number, name in enumerate("ab"))
    samples = read_source(put(root / "l.jsonl", lines), path_column="p", label_column="q")
    assert samples.ids == ["a.jpg", "b.jpg"] and samples.labels.tolist() == [0, 1]


def test_a_json_list_under_images(root: Path, tmp_path: Path) -> None:
    listed = {"images": [{"image_id": "a.jpg", "class_id": 1}, {"image_id": "b.jpg", "class_id": "0"}]}
    assert read_source(put(root / "train.json", listed)).labels.tolist() == [1, 0]
    samples = read_source(put(tmp_path / "train.json", listed), root=root)
    assert samples.ids == ["a.jpg", "b.jpg"] and samples.class_names == ["0", "1"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("l.json", "", "is empty"),
        ("l.json", "[]", "lists no image"),
        ("l.jsonl", "\n", "lists no image"),
        ("l.json", "[{", "is no valid JSON: .*line 1"),
        ("l.json", "[" * 100_000, "nested too deep|no valid JSON"),
        ("l.json", '{"a.jpg": 1}', "no list of objects, nor .*'images'"),
        ("l.json", '[{"path": "a.jpg"}, "b.jpg"]', r"entry 1 \(counted from 0\) is no object .* but 'b.jpg'"),
        ("l.json", '[{"path": "a.jpg"}, {"x": 1}]', "entry 1 .* no path as text under 'path'"),
        ("l.json", '[{"path": 3}]', "entry 0 .* no path as text"),
        ("l.json", '[{"x": 3}]', "none of the columns path, .* only: x; .*--path-column"),
        ("l.json", '[{"path": "a.jpg", "label": 1}, {"path": "b.jpg"}]', "entry 1 .* has no 'label'"),
        ("l.json", '[{"path": "a.jpg", "label": [1]}]', r"must be text or a whole number, not \[1\]"),
        ("l.json", '[{"path": "a.jpg", "label": true}]', "must be text or a whole number, not True"),
        ("l.json", '[{"path": "a.jpg", "label": 0.5}]', "entry 0 .*: a label must be text or a whole number"),
        ("l.jsonl", '{"path": "a.jpg"}\n\n{"path": "b.jpg"', "line 3 is no valid JSON"),
        ("l.jsonl", '{"path": "a.jpg"}\n\n[1]', "line 3 is no object"),
        ("l.json", '[{"path": "g.jpg"}, {"path": "h.jpg"}]', "none of the 2 images .*'g.jpg', 'h.jpg'.*--root"),
        ("l.zip", "PK\x03\x04", "is a zip archive; unpack it"),
    ],
)
def test_what_is_wrong_with_a_list(root: Path, name: str, content: str, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        read_source(put(root / name, content))


def test_compressed_lists_and_folders_that_cannot_be_read(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "l.csv.gz").write_bytes(b"\x1f\x8b\x08abc")
    with pytest.raises(SourceError, match=r"compressed \(gzip\); decompress it first"):
        read_source(root / "l.csv.gz")
    (root / "l.bin").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SourceError, match="not a text file in UTF-8"):
        read_source(root / "l.bin")

    def denied(folder: Path) -> None:
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr("os.scandir", denied)
    with pytest.raises(SourceError, match="root cannot be read: Permission denied"):
        read_source(root)


# ---- tables ---------------------------------------------------------------------------------------------------------


def nuisance(folder: Path, rows: list[tuple[str, str]]) -> Path:
    for name, label in rows:
        (folder / "Images" / label).mkdir(parents=True, exist_ok=True)
        (folder / "Images" / label / name).write_bytes(b"x")
    return put(folder / "labels.csv", "imgs,labels\n" + "".join(f"{name},{label}\n" for name, label in rows))


def test_tables_of_nuisances(tmp_path: Path) -> None:
    shape = nuisance(tmp_path / "n" / "shape", [("1.jpg", "car"), ("2.jpg", "bus")])
    pose = nuisance(tmp_path / "n" / "pose", [("1.jpg", "bus")])
    one = read_source(shape)
    assert one.ids == ["1.jpg", "2.jpg"] and one.origins[1] == tmp_path / "n/shape/Images/bus/2.jpg"
    assert one.class_names == ["bus", "car"] and one.labels.tolist() == [1, 0]
    assert read_source(shape.parent).ids == one.ids
    assert read_source(tmp_path / "n").ids == ["pose/1.jpg", "shape/1.jpg", "shape/2.jpg"]
    assert read_source([shape, pose]).ids == ["shape/1.jpg", "shape/2.jpg", "pose/1.jpg"]
    assert read_source([shape.parent, pose.parent]).labels.tolist() == [1, 0, 0]
    (tmp_path / "n" / "iid").mkdir()
    with pytest.raises(SourceError, match=r"\('pose', 'shape'\) beside others \('iid'\)"):
        read_source(tmp_path / "n")


def test_a_name_that_lies_in_two_label_folders_is_two_samples(tmp_path: Path) -> None:
    table = nuisance(tmp_path / "shape", [("1.jpg", "car"), ("1.jpg", "bus")])
    assert read_source(table).ids == ["Images/car/1.jpg", "Images/bus/1.jpg"]


def test_tables_of_pseudo_labels(root: Path, tmp_path: Path) -> None:
    scores = put(tmp_path / "p.csv", "imgs,pred,0,1\na.jpg,bus,.9,.1\nb.jpg,car,.2,.8\n")
    samples = read_source(scores, root=root)
    assert samples.class_names == ["bus", "car"] and samples.labels.tolist() == [0, 1]
    ours = put(tmp_path / "q.csv", "id,label,confidence,source,round\nc.jpg,car,0.91,e.arrow,1\n")
    samples = read_source([scores, ours], root=root, keep=["confidence", "round"])
    assert samples.ids == ["a.jpg", "b.jpg", "c.jpg"] and samples.labels.tolist() == [0, 1, 1]
    assert samples.columns == {"confidence": [None, None, 0.91], "round": [None, None, 1]}
    assert read_source(root, labels=scores).labels.tolist() == [0, 1, -1, -1, -1, -1]


@pytest.mark.parametrize(
    ("header", "path", "label"),
    [
        ("id,image,path,label", "path", "label"),
        ("image_id,file_name,y", "file_name", "y"),
        ("pred,labels,imgs", "imgs", "labels"),
        ("id,prediction", "id", "prediction"),
    ],
)
def test_usual_columns_are_preferred_in_a_fixed_order(root: Path, header: str, path: str, label: str) -> None:
    cells = {path: "a.jpg", label: "right"}
    row = ",".join(cells.get(name, "b.jpg") for name in header.split(","))
    samples = read_source(put(root / "t.csv", f"{header}\n{row}\n"))
    assert (samples.ids, samples.class_names) == (["a.jpg"], ["right"])


def test_numbers_and_names_in_a_table(root: Path) -> None:
    table = put(root / "t.csv", "path,label,label_name\na.jpg,1,ant\nb.jpg,0,bee\nc.jpg,,\n")
    samples = read_source(table)
    assert samples.class_names == ["bee", "ant"] and samples.labels.tolist() == [1, 0, -1]
    assert read_source([table, put(root / "l.txt", "d.jpg ant\ne.jpg 0\n")]).labels.tolist() == [1, 0, -1, 1, 0]


def test_short_rows_are_named_by_their_line(root: Path) -> None:
    table = put(root / "t.csv", 'path,note,label\na.jpg,"two\nlines",x\nb.jpg\n')
    with pytest.raises(SourceError, match="line 4: 1 columns and no column 'label'"):
        read_source(table)


# ---- text -----------------------------------------------------------------------------------------------------------


def test_padded_numbers_keep_their_text(root: Path) -> None:
    samples = read_source(put(root / "l.txt", "a.jpg 0003\nb.jpg 0000\n"))
    assert samples.class_names == ["0000", "0001", "0002", "0003"] and samples.labels.tolist() == [3, 0]
    mixed = read_source(put(root / "l.txt", "a.jpg 003\nb.jpg 0\n"))
    assert mixed.class_names == ["0", "1", "2", "3"]
    names = put(root / "names.txt", "\n".join(f"{number:04d}" for number in range(6)))
    listed = put(root / "l.txt", "a.jpg 0003\nb.jpg 5\n")
    samples = read_source(listed, classes=names)
    assert len(samples.class_names) == 6 and samples.labels.tolist() == [3, 5]


def test_a_tree_of_numbers_and_a_list_of_numbers_have_the_same_classes(tmp_path: Path) -> None:
    for place in ("train/0000", "train/0004", "testa"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "x.jpg").write_bytes(b"x")
    listed = put(tmp_path / "train" / "pseudo.txt", "testa/x.jpg 0002\n")
    samples = read_source([tmp_path / "train", listed])
    assert samples.class_names == ["0000", "0001", "0002", "0003", "0004"]
    assert samples.labels.tolist() == [0, 4, 2]


def test_folders_beside_the_root(tmp_path: Path) -> None:
    for place in ("train/0000", "testa", "testb"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "x.jpg").write_bytes(b"x")
    listed = put(tmp_path / "meta" / "all.txt", "0000/x.jpg 0000\ntesta/x.jpg 0001\ntestb/x.jpg 0001\n")
    samples = read_source(listed, root=tmp_path / "train")
    assert samples.ids == ["0000/x.jpg", "testa/x.jpg", "testb/x.jpg"] and not samples.missing
    assert samples.origins[1:] == [tmp_path / "testa/x.jpg", tmp_path / "testb/x.jpg"]


def test_missing_files_are_noted(root: Path) -> None:
    samples = read_source(put(root / "l.txt", "a.jpg 1\ngone.jpg 0\n"))
    assert samples.missing == ["gone.jpg"] and len(samples) == 2


def test_absolute_paths(root: Path, tmp_path: Path) -> None:
    samples = read_source(put(tmp_path / "l.txt", f"{root}/a.jpg 1\n{root}/b.jpg 0\n"))
    assert samples.ids == ["root/a.jpg", "root/b.jpg"] and samples.labels.tolist() == [1, 0]


WORD = st.text(st.characters(exclude_categories=["C", "Z"], exclude_characters="\t\r\n \0"), min_size=1, max_size=8)
LABEL = WORD.filter(lambda word: Path(word).suffix.lower() not in IMAGE_SUFFIXES)
NAME = st.lists(WORD, min_size=1, max_size=4).map(" ".join).map(lambda name: f"{name}.jpg")


@given(st.lists(st.tuples(NAME, st.none() | LABEL), max_size=6), st.sampled_from(["\n", "\r\n", " \n\n"]))
def test_lines_of_a_text_list(tmp_path_factory: pytest.TempPathFactory, pairs: list[Any], end: str) -> None:
    path = tmp_path_factory.getbasetemp() / "property.txt"
    text = "".join(name + (f" {label}" if label else "") + end for name, label in pairs)
    path.write_text(text, encoding="utf-8", newline="")
    entries = read_text_list(path)
    assert list(zip(entries.paths, entries.labels, strict=True)) == pairs


@given(rows=st.lists(st.tuples(NAME, LABEL), min_size=1, max_size=5))
def test_tables_and_json_say_the_same(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]]) -> None:
    from fasttrain.beton_build.found import SourceOptions
    from fasttrain.beton_build.json_lists import read_json_list
    from fasttrain.beton_build.lists import read_table

    base = tmp_path_factory.getbasetemp()
    with (base / "p.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("path", "label"), *rows])
    put(base / "p.json", [{"path": path, "label": label} for path, label in rows])
    table, listed = read_table(base / "p.csv", SourceOptions()), read_json_list(base / "p.json", SourceOptions())
    assert (table.paths, table.labels) == (listed.paths, listed.labels)
    assert table.paths == [path for path, _ in rows]
