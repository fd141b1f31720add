"""Builds from files to a `.beton`, and the verification of what was built."""

import subprocess
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fasttrain.base.errors import BetonError, SourceError
from fasttrain.beton_build.build import build
from fasttrain.beton_build.images import decode_rgb
from fasttrain.beton_build.options import BuildOptions
from fasttrain.beton_build.reader import BetonReader
from fasttrain.beton_build.report import BrokenImagesError
from fasttrain.beton_build.sources import read_source
from fasttrain.beton_build.verify import verify


def left_over(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_file())


def as_jpeg(path: Path) -> np.ndarray:
    """The pixels of a file after Pillow's own JPEG compression of the stated quality."""
    stream = BytesIO()
    Image.fromarray(decode_rgb(path)).save(stream, "JPEG", quality=95, subsampling="4:2:0")
    return np.asarray(Image.open(stream))


def test_keep(tree: Path, tmp_path: Path) -> None:
    samples = read_source(tree)
    report = build(samples, tmp_path / "a.beton")
    assert report.as_json()["normalised"] == {"kept": 5, "re-encoded": 7}
    assert (report.samples, report.classes, report.skipped) == (12, 3, [])
    assert report.bytes == (tmp_path / "a.beton").stat().st_size
    assert report.images_per_s > 0
    with BetonReader(tmp_path / "a.beton") as reader:
        assert list(reader.ids) == samples.ids
        assert np.array_equal(reader.labels, samples.labels)
        assert reader.class_names == ["cat", "dog", "emu"]
        for row, path in enumerate(samples.origins):
            if path.suffix == ".jpg":
                assert bytes(reader.image_bytes(row)) == path.read_bytes()
            else:
                assert np.array_equal(reader.image(row), as_jpeg(path))
        assert reader.build_info["source_fingerprint"] == samples.fingerprint()
        assert reader.build_info["options"]["mode"] == "keep"


def test_raw_is_exact_and_jpg_is_of_the_stated_quality(tree: Path, tmp_path: Path) -> None:
    samples = read_source(tree)
    build(samples, tmp_path / "raw.beton", BuildOptions(mode="raw"))
    build(samples, tmp_path / "jpg.beton", BuildOptions(mode="jpg"))
    with BetonReader(tmp_path / "raw.beton") as raw, BetonReader(tmp_path / "jpg.beton") as jpg:
        assert set(raw.modes) == {1} and set(jpg.modes) == {0}
        for row, path in enumerate(samples.origins):
            assert np.array_equal(raw.image(row), decode_rgb(path))
            if path.suffix == ".jpg":  # re-encoded from its own planes: closer to the source than by way of RGB
                assert np.abs(jpg.image(row).astype(int) - decode_rgb(path)).mean() < 3
            else:
                assert np.array_equal(jpg.image(row), as_jpeg(path))


def test_threads_do_not_change_the_file(tree: Path, tmp_path: Path) -> None:
    samples = read_source(tree)
    for workers in (1, 5):
        build(samples, tmp_path / f"{workers}.beton", BuildOptions(workers=workers))
    assert (tmp_path / "1.beton").read_bytes() == (tmp_path / "5.beton").read_bytes()


def test_validation_part(tree: Path, tmp_path: Path) -> None:
    samples = read_source(tree)
    report = build(samples, tmp_path / "a.beton", BuildOptions(val_fraction=0.25))
    assert report.samples == 9
    assert report.val is not None and report.val["out"] == str(tmp_path / "a_val.beton") and report.val["samples"] == 3
    with BetonReader(tmp_path / "a.beton") as train, BetonReader(tmp_path / "a_val.beton") as val:
        assert sorted([*train.ids, *val.ids]) == samples.ids
        assert train.class_names == val.class_names == samples.class_names
        assert val.build_info["options"]["part"] == "val"
        for reader in (train, val):
            for row, name in enumerate(reader.ids):
                assert reader.labels[row] == samples.labels[samples.ids.index(name)]
    build(samples, tmp_path / "b.beton", BuildOptions(val_fraction=0.25, val_out=tmp_path / "other.beton"))
    assert (tmp_path / "other.beton").read_bytes() == (tmp_path / "a_val.beton").read_bytes()


def test_broken_images_are_all_named_and_nothing_is_left(tree: Path, tmp_path: Path) -> None:
    (tree / "cat" / "00.jpg").write_bytes(b"garbage")
    (tree / "emu" / "01.png").write_bytes((tree / "emu" / "01.png").read_bytes()[:200])
    with pytest.raises(BrokenImagesError) as caught:
        build(read_source(tree), tmp_path / "a.beton", BuildOptions(val_fraction=0.25))
    assert [error.sample_id for error in caught.value.bad] == ["cat/00.jpg", "emu/01.png"]
    assert str(tree / "cat/00.jpg") in str(caught.value) and str(tree / "emu/01.png") in str(caught.value)
    assert left_over(tmp_path) == []


def test_broken_images_can_be_skipped(tree: Path, tmp_path: Path) -> None:
    (tree / "cat" / "00.jpg").write_bytes(b"garbage")
    listed = tree / "list.txt"
    listed.write_text("cat/00.jpg a\ncat/01.png b\ngone.jpg a\nmissing dir/x.png b\ncat/02.webp a\n")
    report = build(read_source(listed), tmp_path / "a.beton", BuildOptions(on_error="skip"))
    skipped = report.as_json()["skipped"]
    assert [entry["id"] for entry in skipped] == ["cat/00.jpg", "gone.jpg", "missing dir/x.png"]
    assert skipped[0]["path"] == str(tree / "cat/00.jpg")
    assert [entry["error"] for entry in skipped[1:]] == ["No such file or directory"] * 2
    with BetonReader(tmp_path / "a.beton") as reader:
        assert list(reader.ids) == ["cat/01.png", "cat/02.webp"]
        assert reader.labels.tolist() == [1, 0]
    assert verify(tmp_path / "a.beton").ok


def test_nothing_left_after_skipping(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "x.jpg").write_bytes(b"garbage")
    with pytest.raises(SourceError, match="no readable image is left"):
        build(read_source(tmp_path / "src"), tmp_path / "a.beton", BuildOptions(on_error="skip"))
    assert left_over(tmp_path) == []


def test_where_a_file_may_not_be_written(tree: Path, tmp_path: Path) -> None:
    samples = read_source(tree)
    out = tmp_path / "a.beton"
    out.write_text("precious")
    with pytest.raises(SourceError, match=r"already exists; give --force"):
        build(samples, out)
    assert out.read_text() == "precious"
    build(samples, out, BuildOptions(force=True))
    assert verify(out).ok
    with pytest.raises(SourceError, match=r"must end in .beton"):
        build(samples, tmp_path / "a.txt")
    (tmp_path / "dir.beton").mkdir()
    with pytest.raises(SourceError, match="is a folder"):
        build(samples, tmp_path / "dir.beton")
    with pytest.raises(SourceError, match="is not a folder"):
        build(samples, out / "below" / "b.beton")
    with pytest.raises(SourceError, match="cannot both be written"):
        build(samples, tmp_path / "c.beton", BuildOptions(val_fraction=0.5, val_out=tmp_path / "c.beton"))
    with pytest.raises(SourceError, match="leaves none for validation"):
        build(samples, tmp_path / "c.beton", BuildOptions(val_fraction=0.001))
    build(samples, tmp_path / "new" / "folder" / "d.beton")
    assert verify(tmp_path / "new" / "folder" / "d.beton").ok


def test_too_small_pages_leave_nothing(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    Image.new("RGB", (1000, 1000)).save(tmp_path / "src" / "big.png")
    samples = read_source(tmp_path / "src")
    with pytest.raises(BetonError, match=r"'big.png' takes 3000000 bytes.*--page-size 4194304"):
        build(samples, tmp_path / "a.beton", BuildOptions(mode="raw", page_size=1 << 21))
    assert left_over(tmp_path) == []
    build(samples, tmp_path / "a.beton", BuildOptions(mode="raw"))
    with BetonReader(tmp_path / "a.beton") as reader:
        assert reader.page_size == 1 << 22


def test_verify_finds_every_wrong_image(tree: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.beton"
    build(read_source(tree), out)
    assert verify(out).as_json() == {"samples": 12, "ok": True, "checksums": True, "indexed": 12, "bad": []}
    with BetonReader(out) as reader:
        offsets = [int(reader.offsets[row]) + int(reader.sizes[row]) - 1 for row in (3, 7)]
    with out.open("rb+") as file:
        for offset in offsets:
            file.seek(offset)
            file.write(b"\x11")
    report = verify(out).as_json()
    assert not report["ok"]
    assert [entry["path"] for entry in report["bad"]] == [f"{out}[3]", f"{out}[7]"]
    assert all("checksum" in entry["error"] for entry in report["bad"])


def test_neither_build_nor_read_needs_torch(tree: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from fasttrain.beton_build import build, sources, verify\n"
        f"build.build(sources.read_source({str(tree)!r}), Path({str(tmp_path / 'a.beton')!r}))\n"
        f"assert verify.verify(Path({str(tmp_path / 'a.beton')!r})).ok\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
