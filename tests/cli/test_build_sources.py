"""`fasttrain build` from sources of every kind, as a user calls it."""

import io
import json
import re
import tarfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from fasttrain.beton_build.reader import BetonReader
from fasttrain.cli import data

IDS = ("red/0.jpg", "blue/1.jpg", "blue/2.jpg")


def run(*arguments: object) -> Any:
    app = typer.Typer()
    data.register(app)
    return CliRunner().invoke(app, [str(word) for word in arguments])


@pytest.fixture
def sources(colour_tree: Path, tmp_path: Path) -> dict[str, Path]:
    """The same three images as a list of every kind."""
    names = ("red", "blue", "blue")
    rows = list(zip(IDS, names, (5, 6, 7), strict=True))
    texts = {
        "txt": "".join(f"{path} {label}\n" for path, label, _ in rows),
        "csv": "path,label,age\n" + "".join(f"{path},{label},{age}\n" for path, label, age in rows),
        "json": json.dumps([{"path": path, "label": label, "age": age} for path, label, age in rows]),
        "jsonl": "".join(json.dumps({"path": path, "label": label, "age": age}) + "\n" for path, label, age in rows),
    }
    for suffix, text in texts.items():
        (tmp_path / f"l.{suffix}").write_text(text)
    with tarfile.open(tmp_path / "l.tar", "w") as archive:
        for path, label, age in rows:
            key = path.removesuffix(".jpg")
            for name, content in (
                (path, (colour_tree / path).read_bytes()),
                (f"{key}.cls", label.encode()),
                (f"{key}.json", json.dumps({"age": age}).encode()),
            ):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    assert run("build", tmp_path / "l.csv", tmp_path / "l.beton", "--root", colour_tree, "--keep", "age").exit_code == 0
    return {kind: tmp_path / f"l.{kind}" for kind in (*texts, "tar", "beton")}


def built(out: Path, *arguments: object) -> tuple[Sequence[str], list[int], list[str] | None]:
    result = run("build", *arguments, out, "--json", "--workers", 1)
    assert result.exit_code == 0, result.output
    with BetonReader(out) as reader:
        return reader.ids[:], reader.labels.tolist(), reader.class_names


@pytest.mark.parametrize("kind", ["txt", "csv", "json", "jsonl", "tar", "beton"])
def test_every_kind_of_source(colour_tree: Path, tmp_path: Path, sources: dict[str, Path], kind: str) -> None:
    out = tmp_path / "out.beton"
    keep = [] if kind == "txt" else ["--keep", "age"]
    ids, labels, names = built(out, sources[kind], "--root", colour_tree, *keep)
    stem = ".jpg" if kind != "tar" else ""
    assert ids == [name.removesuffix(".jpg") + stem for name in IDS]
    assert (labels, names) == ([1, 0, 0], ["blue", "red"])
    if keep:
        with BetonReader(out) as reader:
            assert reader.column("age").tolist() == [5, 6, 7]


def test_all_kinds_at_once(colour_tree: Path, tmp_path: Path, sources: dict[str, Path]) -> None:
    (tmp_path / "ids.txt").write_text("red/0\nred/0.jpg\n")
    choice = ["--ids", tmp_path / "ids.txt", "--keep", "age,age"]
    ids, labels, names = built(tmp_path / "out.beton", sources["json"], sources["tar"], "--root", colour_tree, *choice)
    assert (ids, labels, names) == (["red/0.jpg", "red/0"], [1, 1], ["blue", "red"])


def test_missing_files_are_told_before_the_build(colour_tree: Path, tmp_path: Path) -> None:
    (tmp_path / "l.txt").write_text("red/0.jpg red\nblue/1.jpg blue\nred/gone.jpg red\n")
    result = run("build", tmp_path / "l.txt", tmp_path / "out.beton", "--root", colour_tree, "--on-error", "skip")
    assert result.exit_code == 0
    assert "warning: 1 listed images do not exist: 'red/gone.jpg'" in result.output


@pytest.fixture
def lists(colour_tree: Path, tmp_path: Path) -> Path:
    """A list of images with domains, numbered names and masks, and one of images to be told, as NICO++ has them."""
    entries = []
    for number, colour in enumerate(("red", "green", "blue")):
        for index in range(8):
            path = tmp_path / "masks" / colour / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((40, 48), 255 * (index % 2), np.uint8)).save(path)
            entry = {"image_path": f"{colour}/{index}.jpg", "domain": index % 2, "label": 2 - number}
            seg = str(path.relative_to(tmp_path))
            entries.append({**entry, "label_name": colour, "image_seg_path": seg, "image_name": f"{colour}-{index}"})
    test = [{"image_path": f"red/{index}.jpg", "image_name": str(index)} for index in range(3)]
    for name, value in (("train", entries), ("test", test)):
        (tmp_path / f"{name}.json").write_text(json.dumps(value, indent=4))
    (tmp_path / "map.csv").write_text("from,to\n0,0\n255,1\n")
    (tmp_path / "names.txt").write_text("background\nobject\n")
    return tmp_path


def test_lists_with_domains_and_masks(colour_tree: Path, lists: Path) -> None:
    out = lists / "out.beton"
    masks = ["--mask-column", "image_seg_path", "--masks", lists]
    masks += ["--mask-map", lists / "map.csv", "--mask-classes", lists / "names.txt"]
    split = ["--val-fraction", 0.5, "--val-by", "domain"]
    ids, labels, names = built(out, lists / "train.json", "--root", colour_tree, *masks, *split)
    assert names == ["blue", "green", "red"] and len(ids) == 12
    with BetonReader(out) as reader, BetonReader(lists / "out_val.beton") as val:
        assert set(ids).isdisjoint(val.ids[:])
        for part in (reader, val):
            pairs = Counter(zip(part.labels.tolist(), part.column("domain").tolist(), strict=True))
            assert set(pairs.values()) == {2} and len(pairs) == 6
            for row, domain in enumerate(part.column("domain").tolist()):
                assert (part.mask(row) == domain).all()
    ids, labels, _ = built(lists / "test.beton", lists / "test.json", "--root", colour_tree, "--classes", out)
    assert (ids, labels) == (["red/0.jpg", "red/1.jpg", "red/2.jpg"], [-1] * 3)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"image_path": None}, "entry 1 .* has no path as text under 'image_path'"),
        ({"image_path": ["red/1.jpg"]}, "entry 1 .* has no path as text under 'image_path'"),
        ({"label": {"a": 1}}, "entry 1 .*: a label must be text or a whole number"),
        ({"label_name": "pink"}, "class 2 is called 'red' and 'pink'"),
        ({"image_seg_path": None}, "1 of 24 images have no mask in column 'image_seg_path': 'red/1.jpg'"),
        ({"image_seg_path": "gone.png"}, "1 masks in column 'image_seg_path' do not exist"),
    ],
)
def test_entries_that_are_wrong_are_named(changes: dict[str, Any], says: str, colour_tree: Path, lists: Path) -> None:
    entries = json.loads((lists / "train.json").read_text())
    entries[1] |= changes
    (lists / "train.json").write_text(json.dumps(entries))
    words = ["--root", colour_tree, "--mask-column", "image_seg_path", "--masks", lists]
    result = run("build", lists / "train.json", lists / "out.beton", *words)
    assert result.exit_code == 1 and re.search(says, f"{result.output}{result.exception}")
    assert not (lists / "out.beton").exists()


def test_a_column_to_split_by_must_be_there(colour_tree: Path, lists: Path) -> None:
    words = ["--root", colour_tree, "--val-fraction", 0.5, "--val-by"]
    result = run("build", lists / "train.json", lists / "out.beton", *words, "place")
    assert result.exit_code == 1 and "no source has the column 'place'" in str(result.exception)
    result = run("build", lists / "train.json", lists / "out.beton", "--val-by", "domain")
    assert result.exit_code == 2 and "--val-by needs --val-fraction" in result.output
