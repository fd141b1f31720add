"""`fasttrain build` from sources of every kind, as a user calls it."""

import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import typer
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
