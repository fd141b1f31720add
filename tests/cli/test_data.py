"""`fasttrain build`, `info` and `verify` as a user runs them."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fasttrain.beton_build.reader import BetonReader

# What the console script does.
COMMAND = [sys.executable, "-c", "from fasttrain.cli.app import main; main()"]


def run(*arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    result = subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == code, result.stderr
    assert "Traceback" not in result.stderr
    return result


def run_json(*arguments: object, code: int = 0) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(run(*arguments, "--json", code=code).stdout)
    return result


def test_the_way_of_a_data_set(colour_tree: Path, tmp_path: Path) -> None:
    out = tmp_path / "c.beton"
    built = run_json("build", colour_tree, out, "--val-fraction", 0.25, "--seed", 1)
    assert {"samples", "classes", "bytes", "skipped", "images_per_s"} <= built.keys()
    assert (built["samples"], built["classes"], built["skipped"]) == (18, 3, [])
    assert built["bytes"] == out.stat().st_size
    assert built["val"]["samples"] == 6
    assert built["normalised"] == {"kept": 24}

    shown = run_json("info", tmp_path / "c_val.beton")
    assert (shown["samples"], shown["classes"]) == (6, ["blue", "green", "red"])
    assert shown["fields"] == [{"name": "image", "type": "image"}, {"name": "label", "type": "int"}]
    assert shown["complete"] is True and shown["indexed"] is True and shown["bytes"] > 0

    assert run_json("verify", out) == {"samples": 18, "ok": True, "checksums": True, "indexed": 18, "bad": []}
    assert "samples: 18" in run("info", out).stdout


def test_damage_is_found(colour_tree: Path, tmp_path: Path) -> None:
    out = tmp_path / "c.beton"
    run("build", colour_tree, out)
    with BetonReader(out) as reader:
        offset = int(reader.offsets[5]) + 100
    with out.open("rb+") as file:
        file.seek(offset)
        file.write(b"damage")
    report = run_json("verify", out, code=1)
    assert report["ok"] is False and report["samples"] == 24
    assert [entry["id"] for entry in report["bad"]] == ["blue/5.jpg"]
    assert "bad: 1" in run("verify", out, code=1).stdout
    out.write_bytes(out.read_bytes()[:-1000])
    assert "cut short" in run("verify", out, code=1).stderr


def test_broken_images(colour_tree: Path, tmp_path: Path) -> None:
    listed = tmp_path / "list.csv"
    (tmp_path / "bad.jpg").write_bytes((colour_tree / "red" / "0.jpg").read_bytes()[:300])
    rows = [f"{colour_tree}/red/1.jpg,red", f"{tmp_path}/bad.jpg,red", f"{colour_tree}/blue/1.jpg,blue", "gone.jpg,red"]
    listed.write_text("\n".join(["file,class", *rows]))
    failed = run("build", listed, tmp_path / "c.beton", code=1)
    assert f"{tmp_path}/bad.jpg" in failed.stderr and f"{tmp_path}/gone.jpg" in failed.stderr
    assert not list(tmp_path.glob("*.beton*"))
    built = run_json("build", listed, tmp_path / "c.beton", "--on-error", "skip")
    assert built["samples"] == 2
    assert [entry["path"] for entry in built["skipped"]] == [f"{tmp_path}/bad.jpg", f"{tmp_path}/gone.jpg"]
    assert all(entry.keys() == {"id", "path", "error"} for entry in built["skipped"])


def test_one_class_alone_is_refused(colour_tree: Path, tmp_path: Path) -> None:
    root = tmp_path / "one"
    root.mkdir()
    (root / "red").symlink_to(colour_tree / "red")
    failed = run("build", root, tmp_path / "c.beton", code=1)
    assert failed.stderr.startswith("fasttrain: there is only one class, 'red', and a classifier needs two")
    (tmp_path / "classes.txt").write_text("blue\nred\n")  # a part of a data set, which says so
    assert run_json("build", root, tmp_path / "c.beton", "--classes", tmp_path / "classes.txt")["classes"] == 2


def test_every_bad_input_is_one_clear_sentence(colour_tree: Path, tmp_path: Path) -> None:
    good = tmp_path / "good.beton"
    run("build", colour_tree, good)
    photo = (colour_tree / "red" / "0.jpg").read_bytes()
    (tmp_path / "empty").mkdir()
    (tmp_path / "photos").mkdir()
    for name, data in {
        "a.jpg": photo,
        "cut.jpg": photo[: len(photo) // 2],
        "zip.jpg": b"PK\x03\x04" + bytes(90),
    }.items():
        (tmp_path / "photos" / name).write_bytes(data)
    (tmp_path / "photos" / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    lists = {
        "cut.txt": "photos/a.jpg 0\nphotos/cut.jpg 1\n",
        "zip.txt": "photos/a.jpg 0\nphotos/zip.jpg 1\n",
        "gone.txt": "photos/a.jpg 0\nphotos/gone.jpg 1\n",
        "twice.txt": "photos/a.jpg 0\nphotos/a.jpg 1\n",
        "stranger.csv": "id,label\na.jpg,0\nnobody.jpg,1\n",
    }
    for name, text in lists.items():
        (tmp_path / name).write_text(text)
    data = bytearray(good.read_bytes())
    trailer = int.from_bytes(data[16:24], "little") - 40 + 16  # where the footer says that the trailer starts
    trailer = int.from_bytes(data[trailer : trailer + 8], "little")
    damaged = {
        "cut": data[: len(data) // 2],
        "header": data[:40] + b"\xff" + data[41:],
        "trailer": data[: trailer + 8] + b"\xff" + data[trailer + 9 :],
        "future": b"\x03\x00" + data[2:],
        "other": b"not a beton at all, but a file of this name" * 9,
    }
    for name, content in damaged.items():
        (tmp_path / f"{name}.beton").write_bytes(content)
    out = tmp_path / "out.beton"
    cases: list[tuple[list[object], str]] = [
        (["build", tmp_path / "empty", out], "holds no image"),
        (["build", tmp_path / "cut.txt", out], "truncated"),
        (["build", tmp_path / "zip.txt", out], "not an image of a known format"),
        (["build", tmp_path / "gone.txt", out], "No such file or directory"),
        (["build", tmp_path / "twice.txt", out], "listed more than once: 'photos/a.jpg'"),
        (["build", tmp_path / "photos", out, "--labels", tmp_path / "stranger.csv"], "no source holds: 'nobody.jpg'"),
        (["verify", tmp_path / "cut.beton"], "is cut short"),
        (["verify", tmp_path / "header.beton"], "the checksum of its header"),
        (["verify", tmp_path / "trailer.beton"], "the checksum of its trailer"),
        (["verify", tmp_path / "future.beton"], "of version 3; this program reads version 2"),
        (["verify", tmp_path / "other.beton"], "is not a .beton file"),
        (["merge", good, good, out], "ids occur more than once in the files to merge"),
    ]
    for arguments, message in cases:
        failed = run(*arguments, code=1)
        assert message in failed.stderr, (arguments, failed.stderr)
        assert "Traceback" not in failed.stderr
        assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["build", "{tree}"], "Missing argument"),
        (["build", "{tree}", "out.txt"], "must end in .beton"),
        (["build", "{tree}", "{out}", "--page-size", "1000"], "not a power of two"),
        (["build", "{tree}", "{out}", "--val-fraction", "1"], "--val-fraction"),
        (["build", "{tree}", "{out}", "--val-out", "x.beton"], "--val-out needs --val-fraction"),
        (["build", "{tree}", "{out}", "--mode", "best"], "--mode"),
    ],
)
def test_wrong_usage(colour_tree: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    filled = [word.format(tree=colour_tree, out=tmp_path / "c.beton") for word in arguments]
    assert message in run(*filled, code=2).stderr
    assert list(tmp_path.iterdir()) == []


def test_failures_are_one_sentence(colour_tree: Path, tmp_path: Path) -> None:
    out = tmp_path / "c.beton"
    assert "no such file or folder" in run("build", tmp_path / "gone", out, code=1).stderr
    assert run("info", out, code=1).stderr == f"fasttrain: {out}: no such file\n"
    run("build", colour_tree, out)
    assert "already exists; give --force" in run("build", colour_tree, out, code=1).stderr
    run("build", colour_tree, out, "--force")
    out.write_bytes(b"nothing of the kind")
    assert "is not a .beton file" in run("verify", out, code=1).stderr
