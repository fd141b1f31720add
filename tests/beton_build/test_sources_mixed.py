"""Other `.beton` files as sources, sources of several kinds, chosen ids, further columns."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fasttrain import Loader, eval_view
from fasttrain.base.errors import BetonError, SourceError
from fasttrain.beton_build import format as fmt
from fasttrain.beton_build.build import build
from fasttrain.beton_build.options import BuildOptions
from fasttrain.beton_build.origins import BetonImage
from fasttrain.beton_build.reader import BetonReader
from fasttrain.beton_build.sources import read_source
from fasttrain.beton_build.values import EncodedImage
from fasttrain.beton_build.writer import BetonWriter


def put(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def imposed(tmp_path: Path, *names: str) -> Path:
    return put(tmp_path / "names.txt", "\n".join(names))


@pytest.fixture
def beton(tree: Path, tmp_path: Path) -> Path:
    """The tree as a `.beton` with its classes in another order than that of their names."""
    build(read_source(tree, classes=imposed(tmp_path, "emu", "dog", "cat")), tmp_path / "b.beton")
    return tmp_path / "b.beton"


@pytest.fixture
def more(tmp_path: Path, pixels: Callable[..., np.ndarray], encoded: Callable[..., bytes]) -> Path:
    """A tree of one cat and one yak."""
    for seed, name in enumerate(("cat", "yak")):
        (tmp_path / "more" / name).mkdir(parents=True)
        (tmp_path / "more" / name / "new.png").write_bytes(encoded(pixels(20, 18, seed), "PNG"))
    return tmp_path / "more"


def extended(path: Path, stream: bytes, size: tuple[int, int]) -> Path:
    """A `.beton` of three samples with a field of each kind."""
    fields = [
        *fmt.IMAGE_AND_LABEL,
        fmt.FieldSpec("count", fmt.INT_FIELD),
        fmt.FieldSpec("weight", fmt.FLOAT_FIELD),
        fmt.FieldSpec("blob", fmt.BYTES_FIELD),
        fmt.FieldSpec("about", fmt.JSON_FIELD),
        fmt.array_field("box", "<f4", (2,)),
        fmt.FieldSpec("mask", fmt.IMAGE_FIELD),
    ]
    with BetonWriter(path, 3, fields, class_names=["a", "b"]) as writer:
        for row in range(3):
            image = EncodedImage(stream, fmt.MODE_JPG, *size)
            box = np.array([row, 2], np.float32)
            values = [image, row % 2, row, row / 2, b"x" * (row + 1), {"row": row}, box, image]
            writer.add(f"s{row}", values)
    return path


def test_classes_are_those_of_a_beton(beton: Path, tree: Path, tmp_path: Path) -> None:
    """Also of labels that name only some of them, as pseudo-labels do."""
    labels = put(tmp_path / "labels.csv", f"id,label\n{read_source(tree).ids[0]},dog\n")
    samples = read_source(tree, labels=labels, ids=labels, classes=beton)
    assert samples.class_names == ["emu", "dog", "cat"] and samples.labels.tolist() == [1]
    unlabelled = read_source(tree, labelled=False)
    build(unlabelled, tmp_path / "u.beton")
    with pytest.raises(SourceError, match="names no classes"):
        read_source(tree, classes=tmp_path / "u.beton")


def test_a_beton_is_taken_as_it_is(beton: Path, tmp_path: Path) -> None:
    samples = read_source(beton)
    assert isinstance(samples.origins[0], BetonImage)
    assert samples.class_names == ["emu", "dog", "cat"]
    build(samples, tmp_path / "c.beton")
    with BetonReader(beton) as first, BetonReader(tmp_path / "c.beton") as second:
        assert second.ids[:] == first.ids[:] and second.class_names == first.class_names
        assert second.labels.tolist() == first.labels.tolist()
        for row in range(len(first)):
            assert bytes(first.image_bytes(row)) == bytes(second.image_bytes(row))


def test_a_beton_without_ids(
    tmp_path: Path, pixels: Callable[..., np.ndarray], encoded: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    extended(tmp_path / "x.beton", encoded(pixels(16, 16)), (16, 16))
    monkeypatch.setattr(BetonReader, "has_trailer", False)  # as in FFCV's files
    assert read_source(tmp_path / "x.beton").ids == ["x/0", "x/1", "x/2"]


def test_sources_that_agree_on_classes_keep_their_order(beton: Path, more: Path, tmp_path: Path) -> None:
    listed = put(tmp_path / "l.txt", "more/cat/new.png cat\nmore/yak/new.png 1\n")
    samples = read_source([beton, listed])
    assert samples.class_names == ["emu", "dog", "cat"] and samples.labels[-2:].tolist() == [2, 1]
    assert samples.ids[-1] == "more/yak/new.png"
    trees = read_source([listed, beton], classes=imposed(tmp_path, "yak", "cat", "dog", "emu"))
    assert trees.labels[:3].tolist() == [1, 1, 1] and trees.labels[-1] == 3
    replaced = read_source(beton, labels=put(tmp_path / "l.csv", "id,label\ncat/00.jpg,dog\n"))
    assert replaced.class_names == ["emu", "dog", "cat"] and replaced.labels.tolist() == [1] + [-1] * 11


def test_other_classes_are_joined_by_name(beton: Path, more: Path, tmp_path: Path) -> None:
    samples = read_source([beton, more])
    assert samples.class_names == ["cat", "dog", "emu", "yak"]
    assert [samples.class_names[label] for label in samples.labels] == ["cat"] * 6 + ["dog"] * 4 + [
        *["emu"] * 2,
        "cat",
        "yak",
    ]
    build(read_source(more), tmp_path / "m.beton")
    with pytest.raises(SourceError, match=r"l\.txt numbers its classes \('7'\), while .*names them; .*--classes"):
        read_source([beton, put(tmp_path / "l.txt", "more/cat/new.png 7\n")])
    both = read_source([beton, tmp_path / "m.beton"])
    assert both.class_names == samples.class_names and both.labels.tolist() == samples.labels.tolist()
    with pytest.raises(SourceError, match=r"numbers its classes .* while .*more names them"):
        read_source([more, put(tmp_path / "l.txt", "tree/cat/00.jpg 1\n")])


def test_a_beton_that_is_no_source(beton: Path, tmp_path: Path) -> None:
    (tmp_path / "cut.beton").write_bytes(beton.read_bytes()[:-100])
    with pytest.raises(BetonError, match="cut short"):
        read_source(tmp_path / "cut.beton")
    with BetonWriter(tmp_path / "n.beton", 1, [fmt.FieldSpec("n", fmt.INT_FIELD)]) as writer:
        writer.add("x", [1])
    with pytest.raises(SourceError, match="has no image field"):
        read_source(tmp_path / "n.beton")


def test_chosen_ids(tree: Path, tmp_path: Path) -> None:
    ids = put(tmp_path / "ids.txt", "dog/01.png\n\ncat/03.jpg\r\n")
    samples = read_source(tree, ids=ids)
    assert samples.ids == ["cat/03.jpg", "dog/01.png"] and len(samples.origins) == 2
    assert samples.labels.tolist() == [0, 1] and samples.class_names == ["cat", "dog", "emu"]
    table = put(tmp_path / "ids.csv", "label,id\nx,dog/01.png\n")
    assert read_source(tree, ids=table).ids == ["dog/01.png"]
    with pytest.raises(SourceError, match=r"ids\.txt names 1 ids that no source holds: 'gone'"):
        read_source(tree, ids=put(ids, "gone\ncat/03.jpg\n"))
    with pytest.raises(SourceError, match="names no id"):
        read_source(tree, ids=put(ids, "\n"))


def test_columns_of_tables_are_numbers_where_all_are(tree: Path) -> None:
    rows = ["path,whole,part,code,note,gap,huge", "cat/00.jpg,1,1,007,a,,1", f"cat/01.png,-2,.5e1,1,3,4,{2**63}"]
    table = put(tree / "t.csv", "\n".join(rows))
    columns = read_source(table, keep=["all"]).columns
    assert columns == {
        "whole": [1, -2],
        "part": [1.0, 5.0],
        "code": ["007", "1"],
        "note": ["a", "3"],
        "gap": [None, 4],
        "huge": ["1", str(2**63)],
    }


def test_columns_of_several_sources(tree: Path, tmp_path: Path, encoded: Any, pixels: Any) -> None:
    listed = put(
        tree / "l.json", [{"path": "cat/00.jpg", "box": [1, 2], "label": "a"}, {"path": "dog/00.jpg", "label": "b"}]
    )
    file = extended(tmp_path / "x.beton", encoded(pixels(16, 16)), (16, 16))
    samples = read_source([listed, file, tree / "emu"], keep=["box", "about", "weight", "blob", "count"])
    assert samples.columns["about"] == [None, None, {"row": 0}, {"row": 1}, {"row": 2}, None, None]
    assert samples.columns["count"] == [None, None, 0, 1, 2, None, None]
    assert samples.columns["weight"][2:5] == [0.0, 0.5, 1.0] and samples.columns["blob"][4] == b"xxx"
    assert samples.columns["box"][:2] == [[1, 2], None] and samples.columns["box"][3].tolist() == [1.0, 2.0]
    with pytest.raises(SourceError, match=r"no source has the column 'zzz'.*; there is: box, count"):
        read_source([listed, file], keep=["zzz"])
    with pytest.raises(SourceError, match="'mask' holds further images"):
        read_source(file, keep=["all"])
    first = read_source(file, keep=["count"]).fingerprint()
    assert first == read_source(file, keep=["count"]).fingerprint() != read_source(file).fingerprint()
    named = put(tree / "t.csv", "path,image\ncat/00.jpg,1\n")
    with pytest.raises(SourceError, match="'image' cannot be kept"):
        read_source(named, keep=["image"])


def test_columns_become_fields(tree: Path, tmp_path: Path) -> None:
    rows = "path,label,age,weight,note\ncat/00.jpg,a,3,0.5,x\ndog/00.jpg,b,4,,y\n"
    build(read_source(put(tree / "t.csv", rows), keep=["all"]), tmp_path / "k.beton", BuildOptions(workers=1))
    with BetonReader(tmp_path / "k.beton") as reader:
        assert reader.column("age").tolist() == [3, 4] and np.isnan(reader.column("weight")[1])
        assert [reader.value(row, "note") for row in range(2)] == ["x", "y"]
    again = read_source(tmp_path / "k.beton", keep=["age", "note"])
    assert again.columns == {"age": [3, 4], "note": ["x", "y"]}


def test_the_loader_reads_json_lists(tree: Path) -> None:
    objects = [{"image_path": f"cat/0{n}.{kind}", "label": n % 2} for n, kind in enumerate(("jpg", "png", "webp"))]
    with Loader(put(tree / "l.json", objects), 3, view=eval_view(16), threads=1) as loader:
        (batch,) = loader
        assert batch.labels.tolist() == [0, 1, 0] and loader.string_ids(batch.ids)[0] == "cat/00.jpg"
