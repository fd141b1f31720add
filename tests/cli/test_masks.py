"""Masks on the command line: build, info, verify, and a look at them."""

from pathlib import Path

import numpy as np
from PIL import Image

from fasttrain.beton_build.reader import BetonReader

from .test_data import run, run_json


def write(root: Path) -> None:
    for number, folder in enumerate(("a", "b")):
        for kind in ("images", "labels"):
            (root / kind / folder).mkdir(parents=True)
        mask = np.zeros((20, 30), np.uint8)
        mask[:10] = 1 + number
        mask[0, :3] = 7
        Image.fromarray(mask).convert("RGB").save(root / "images" / folder / "x.png")
        Image.fromarray(mask).save(root / "labels" / folder / "x.png")
    (root / "names.txt").write_text("ground\nwall\ndoor\n")


def test_the_way_of_masks(tmp_path: Path) -> None:
    write(tmp_path)
    images, labels, out = tmp_path / "images", tmp_path / "labels", tmp_path / "a.beton"
    common = ["build", images, out, "--masks", labels, "--no-labels", "--mask-classes", tmp_path / "names.txt"]
    failed = run(*common, code=1)
    assert "x.png: its pixels have the value 7, but" in failed.stderr and not out.exists()
    built = run_json(*common, "--ignore", 7)
    assert (built["samples"], built["classes"], built["masks_without_image"]) == (2, 0, 0)
    told = run_json("info", out)["masks"]
    assert told["classes"] == ["ground", "wall", "door"]
    assert told["images"] == {"ground": 2, "wall": 1, "door": 1, "ignored": 2}
    assert "door" in run("info", out).stdout
    assert run_json("verify", out)["ok"] is True
    shown = run_json("masks", "show", out, "--out", tmp_path / "page", "--size", 16, "--policy", "trivial")
    assert shown["samples"] == 2 and shown["files"][0] == "grid.png"
    assert all((tmp_path / "page" / name).stat().st_size > 100 for name in shown["files"])


def test_what_goes_wrong_is_one_sentence(tmp_path: Path) -> None:
    write(tmp_path)
    images, labels, out = tmp_path / "images", tmp_path / "labels", tmp_path / "a.beton"
    assert "add --masks" in run("build", images, out, "--ignore", 7, code=2).stderr.replace("\n", " ")
    (labels / "b/x.png").unlink()
    (labels / "a/y.png").write_bytes(b"")
    result = run("build", images, out, "--masks", labels, "--no-labels", code=1)
    assert "1 of 2 images have no mask in" in result.stderr and "'b/x.png'" in result.stderr
    (images / "b/x.png").unlink()
    assert "1 masks in" in run("build", images, out, "--masks", labels, "--no-labels").stderr
    assert "b.beton holds no masks" in _show_without(tmp_path)


def _show_without(root: Path) -> str:
    run("build", root / "images", root / "b.beton", "--no-labels")
    return run("masks", "show", root / "b.beton", "--out", root / "page", code=1).stderr


def test_withheld_labels_are_masks_too(colour_masks: Path, tmp_path: Path) -> None:
    """A target set that holds masks is built without them."""
    names = [f"{number:02}.png" for number in range(4)]
    table = tmp_path / "list.csv"
    root = colour_masks
    lines = [f"{root}/images/{name},{name[1]},{root}/labels/{name}\n" for name in names]
    table.write_text("path,label,mask\n" + "".join(lines))
    first, second = tmp_path / "first.beton", tmp_path / "second.beton"
    run("build", table, first, "--mask-column", "mask", "--workers", 1)
    run("build", first, second, "--withhold-labels", tmp_path / "labels.csv", "--workers", 1)
    with BetonReader(first) as before, BetonReader(second) as after:
        assert before.masks is not None and after.masks is None
        assert (after.labels == -1).all()
