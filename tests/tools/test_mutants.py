"""Mutants are pure functions of their seeds, and made of sound images and files."""

from pathlib import Path

import pytest

from fasttrain.beton_build.verify import verify
from fasttrain.kernels.indexed import index_jpeg
from fasttrain.kernels.jpeg import check_jpeg_reference, native_available
from fasttrain.tools.mutants import KINDS, bases_digest, betons, damage, mutant, streams
from fasttrain.tools.mutants.segments import SOF, find_segments


def test_a_seed_says_everything() -> None:
    first = [mutant(seed) for seed in range(40)]
    assert first == [mutant(seed) for seed in range(40)]
    assert {one.kind for one in first} == set(KINDS)
    assert len({one.data for one in first}) > 35
    assert mutant(7, "file").data == mutant(7, "jpeg").data


def test_photos_take_part_where_there_are_any() -> None:
    photo = streams.stream("large")
    bases = [mutant(seed, "jpeg", [photo]).base for seed in range(40)]
    assert 8 < bases.count("photo 0") < 32


@pytest.mark.parametrize("name", streams.NAMES)
def test_the_streams_are_sound(name: str) -> None:
    check_jpeg_reference(streams.stream(name))


@pytest.mark.parametrize("name", betons.NAMES)
def test_the_files_are_sound(name: str, tmp_path: Path) -> None:
    path = tmp_path / "sound.beton"
    path.write_bytes(betons.sound(name))
    report = verify(path, 1)
    assert report.ok and report.samples == 8
    assert report.checksums == (name != "ffcv")


def test_every_change_comes_about() -> None:
    seen = {change for seed in range(600) for change in mutant(seed, "jpeg").changes}
    assert seen == set(damage.CHANGES)
    found = [mutant(seed, "beton") for seed in range(60)]
    assert {one.sealed for one in found} == {False, True}
    assert {part for one in found for change in one.changes for part in [change.split(":")[0]]} >= {
        "header", "descriptors", "metadata", "images", "table", "directory", "sections", "footer",
    }  # fmt: skip


def test_indices_are_kept_and_damaged() -> None:
    found = [one for one in (mutant(seed, "jpeg") for seed in range(300)) if one.index]
    if not native_available():
        assert not found
        return
    assert all(len(one.index) % 8 == 0 for one in found)
    sound = {streams.stream(one.base): index_jpeg(streams.stream(one.base)) for one in found}
    kept = [one for one in found if one.index == sound[streams.stream(one.base)].tobytes()]  # type: ignore[union-attr]
    assert 0.1 < len(kept) / len(found) < 0.6
    assert not any(mutant(seed, "file").index for seed in range(40))


@pytest.mark.skipif(not native_available(), reason="the native kernels were not built")
def test_an_index_is_a_part_of_its_file() -> None:
    data = betons.sound("indexed")
    start, stop = betons.Layout.of(data).parts["index"]
    assert data[start:stop] == index_jpeg(streams.stream("4:2:0")).tobytes()  # type: ignore[union-attr]
    changes = {change for seed in range(600) for change in mutant(seed, "beton").changes}
    assert "index: bits" in changes
    assert "index" not in betons.Layout.of(betons.sound("plain")).parts


def test_segments_are_found_behind_scans_too() -> None:
    found = find_segments(streams.stream("progressive 4:2:0"))
    markers = [segment.marker for segment in found]
    assert markers.count(0xDA) > 5 and sum(marker in SOF for marker in markers) == 1
    assert find_segments(b"") == find_segments(b"\xff\xd8\xff") == []


def test_the_bases_have_a_digest() -> None:
    assert bases_digest() == bases_digest() and len(bases_digest()) == 16
