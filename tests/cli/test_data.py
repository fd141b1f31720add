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
    assert shown["complete"] is True and shown["indexed"] is False and shown["bytes"] > 0

    assert run_json("verify", out) == {"samples": 18, "ok": True, "checksums": True, "bad": []}
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


def test_one_class_is_warned_of(colour_tree: Path, tmp_path: Path) -> None:
    root = tmp_path / "one"
    root.mkdir()
    (root / "red").symlink_to(colour_tree / "red")
    assert "warning: there is only one class, 'red'" in run("build", root, tmp_path / "c.beton").stderr


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
