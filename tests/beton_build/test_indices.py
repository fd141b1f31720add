"""Random-access indices inside of a `.beton`: what `build` and `merge` store, and what the reader makes of it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from fasttrain.base.errors import BetonError, ImageError, SourceError
from fasttrain.beton_build import build as building
from fasttrain.beton_build import format as fmt
from fasttrain.beton_build.build import build
from fasttrain.beton_build.describe import describe
from fasttrain.beton_build.merge import merge
from fasttrain.beton_build.options import BuildOptions
from fasttrain.beton_build.reader import BetonReader
from fasttrain.beton_build.sources import SampleList, read_source
from fasttrain.beton_build.trailer import FOOTER, SECTION, checksum
from fasttrain.beton_build.values import EncodedImage
from fasttrain.beton_build.verify import verify
from fasttrain.beton_build.writer import BetonWriter
from fasttrain.kernels.indexed import index_jpeg
from fasttrain.kernels.jpeg import native_available

pytestmark = pytest.mark.skipif(not native_available(), reason="the native kernels were not built")

Pixels = Callable[..., np.ndarray]
Encoded = Callable[..., bytes]
WITHOUT = {"progressive.jpg": "progressive", "restarts.jpg": "restart markers"}  # of what `keep` keeps


@pytest.fixture
def samples(tmp_path: Path, pixels: Pixels, encoded: Encoded) -> SampleList:
    """Images of every kind, two of which `keep` stores in a code without an index."""
    files = {
        "4-2-0.jpg": encoded(pixels(300, 200, 0), quality=90),
        "4-4-4.jpg": encoded(pixels(131, 47, 1), subsampling="4:4:4"),
        "4-2-2.jpg": encoded(pixels(64, 33, 2), subsampling="4:2:2"),
        "progressive.jpg": encoded(pixels(70, 80, 3), progressive=True),
        "restarts.jpg": encoded(pixels(70, 80, 4), restart_marker_blocks=2),
        "grey.jpg": encoded(pixels(150, 41, 5)[..., 0]),
        "rgb.jpg": encoded(pixels(40, 40, 6), keep_rgb=True),
        "cmyk.jpg": encoded(Image.fromarray(pixels(36, 36, 7)).convert("CMYK")),
        "lossless.png": encoded(pixels(21, 35, 8), "PNG"),
        "tiny.jpg": encoded(pixels(1, 1, 9)),
    }
    folder = tmp_path / "images"
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    (folder / "list.txt").write_text("".join(f"{name} {row % 3}\n" for row, name in enumerate(files)))
    return read_source(folder / "list.txt")


def options(**values: Any) -> BuildOptions:
    return BuildOptions.model_validate(values)


def indices(reader: BetonReader, rows: Sequence[int] | None = None) -> list[bytes]:
    """The indices of `rows`, as a loader finds them."""
    data, offsets, lengths = reader.index_regions(np.array(range(len(reader)) if rows is None else rows))
    assert offsets.dtype == lengths.dtype == np.int64 and not (offsets % 8).any() and not (lengths % 8).any()
    return [bytes(data[at : at + size]) for at, size in zip(offsets.tolist(), lengths.tolist(), strict=True)]


def fresh(reader: BetonReader, row: int) -> bytes:
    index = None if reader.modes[row] == fmt.MODE_RAW else index_jpeg(reader.image_bytes(row))
    return b"" if index is None else index.tobytes()


@pytest.mark.parametrize("mode", ["keep", "jpg", "smart", "proportion", "raw"])
def test_every_jpeg_that_can_have_an_index_has_it(samples: SampleList, tmp_path: Path, mode: str) -> None:
    out = tmp_path / "a.beton"
    report = build(samples, out, options(mode=mode, smart_threshold=50 * 50 * 3))
    with BetonReader(out) as reader:
        expected = [fresh(reader, row) for row in range(len(reader))]
        assert reader.num_indexed == report.indexed == sum(map(bool, expected))
        assert reader.indexed == bool(report.indexed) == (mode != "raw")
        if reader.indexed:
            assert indices(reader) == expected
            assert indices(reader, [7, 0, 0]) == [expected[7], expected[0], expected[0]]
        kept = {name for name, index in zip(reader.ids, expected, strict=True) if not index}
        assert kept == {"keep": set(WITHOUT), "jpg": set(), "raw": set(reader.ids)}.get(mode, kept)
        shown = describe(reader)["index"]
        assert shown["images"] == report.indexed and shown["bytes"] == sum(map(len, expected))
        assert shown["where"] == ("inside" if reader.indexed else None)
        assert sum(shown["not"].values()) == len(reader) - report.indexed
        if mode == "keep":
            assert shown["not"] == dict.fromkeys(WITHOUT.values(), 1)
        assert list(reader.ids) == samples.ids
    verified = verify(out)
    assert verified.ok and verified.indexed == report.indexed


def test_without_an_index_nothing_else_changes(samples: SampleList, tmp_path: Path) -> None:
    build(samples, tmp_path / "with.beton")
    build(samples, tmp_path / "without.beton", options(index=False))
    with BetonReader(tmp_path / "with.beton") as one, BetonReader(tmp_path / "without.beton") as other:
        assert not other.indexed and other.num_indexed == 0 and other.index_where is None
        assert one.fingerprint == other.fingerprint
        assert all(one.image_bytes(row) == other.image_bytes(row) for row in range(len(one)))
        assert describe(other)["index"]["not"] == {"jpeg": 10}
    assert verify(tmp_path / "without.beton").as_json()["indexed"] == 0


def test_indices_lie_behind_their_images_in_the_same_page(tmp_path: Path, pixels: Pixels, encoded: Encoded) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for row in range(60):
        noise = np.random.default_rng(row).integers(0, 256, (200 + row, 333, 3), dtype=np.uint8)
        (folder / f"{row:02d}.jpg").write_bytes(encoded(noise, quality=95))
    build(read_source(folder), tmp_path / "a.beton")
    with BetonReader(tmp_path / "a.beton") as reader:
        _, offsets, lengths = reader.index_regions(np.arange(60))
        starts, sizes = reader.offsets.astype(np.int64), reader.sizes.astype(np.int64)
        assert np.all(lengths > 0) and np.all(offsets - (starts + sizes) < 8)
        pages = starts // reader.page_size
        assert len(set(pages.tolist())) > 1 and np.array_equal(pages, (offsets + lengths - 1) // reader.page_size)
        assert np.all(starts[1:] >= (offsets + lengths)[:-1]) and not (starts % 64).any()


def test_a_beton_as_a_source_and_merged_shards(samples: SampleList, tmp_path: Path) -> None:
    whole, shards = tmp_path / "whole.beton", [tmp_path / f"{index}.beton" for index in range(3)]
    build(samples, whole)
    for index, shard in enumerate(shards):
        build(samples, shard, options(shard=(index, 3)))
    merge(shards, tmp_path / "merged.beton")
    assert (tmp_path / "merged.beton").read_bytes() == whole.read_bytes()
    build(samples, tmp_path / "plain.beton", options(index=False))
    build(read_source(tmp_path / "plain.beton"), tmp_path / "again.beton")
    with BetonReader(whole) as first, BetonReader(tmp_path / "again.beton") as again:
        assert indices(first) == indices(again)


def test_damage_is_found(samples: SampleList, tmp_path: Path) -> None:
    out = tmp_path / "a.beton"
    build(samples, out)
    with BetonReader(out) as reader:
        _, offsets, lengths = reader.index_regions(np.arange(2))
    with out.open("rb+") as file:
        file.seek(int(offsets[1] + lengths[1]) - 1)
        file.write(b"\x55")
    report = verify(out)
    assert [(error.sample_id, error.reason) for error in report.bad] == [
        ("4-4-4.jpg", "its random-access index is damaged: the checksum does not hold")
    ]
    with pytest.raises(ImageError, match=r"4-4-4\.jpg.*random-access index is damaged"):
        merge([out], tmp_path / "m.beton")


def test_the_index_is_part_of_what_a_build_is(
    samples: SampleList, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "a.beton"
    monkeypatch.setattr(building, "COMMIT_EVERY_S", 0.0)
    real, calls = building.prepare_one, iter(range(100))

    def interrupting(*args: Any) -> Any:
        if next(calls) == 6:
            raise KeyboardInterrupt
        return real(*args)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(building, "prepare_one", interrupting)
        build(samples, out, options(workers=1))
    with pytest.raises(SourceError, match="had other options"):
        build(samples, out, options(resume=True, index=False))
    build(samples, out, options(resume=True))
    build(samples, tmp_path / "b.beton")
    assert out.read_bytes() == (tmp_path / "b.beton").read_bytes()


def test_repacking_makes_the_others_indexable(samples: SampleList, tmp_path: Path) -> None:
    kept, packed = tmp_path / "kept.beton", tmp_path / "packed.beton"
    build(samples, kept)
    report = build(samples, packed, options(repack=True))
    assert report.indexed == len(samples.ids) and report.changes["re-packed"] == len(WITHOUT)
    with BetonReader(kept) as one, BetonReader(packed) as other:
        for row, name in enumerate(one.ids):
            assert (one.image_bytes(row) == other.image_bytes(row)) == (name not in WITHOUT)
            assert np.array_equal(one.image(row), other.image(row))
    assert verify(packed).ok
    build(read_source(kept), tmp_path / "again.beton", options(repack=True))  # another `.beton` as the source
    with BetonReader(packed) as one, BetonReader(tmp_path / "again.beton") as other:
        assert [bytes(one.image_bytes(row)) for row in range(10)] == [
            bytes(other.image_bytes(row)) for row in range(10)
        ]
    for mode in ("raw", "jpg"):
        with pytest.raises(SourceError, match=f"--mode {mode} keeps none"):
            build(samples, tmp_path / "b.beton", options(repack=True, mode=mode))


@pytest.fixture
def small(tmp_path: Path, pixels: Pixels, encoded: Encoded) -> Path:
    """Four indexed images."""
    path = tmp_path / "small.beton"
    with BetonWriter(path, 4) as writer:
        for row in range(4):
            stream = encoded(pixels(200 + row, 40, row))
            index = index_jpeg(stream)
            assert index is not None
            writer.add(f"id{row}", [EncodedImage(stream, fmt.MODE_JPG, 200 + row, 40, index.tobytes()), 0])
    return path


def section_at(path: Path, name: str) -> tuple[int, int]:
    """Where the record of a section of the trailer lies, and the section itself."""
    data = path.read_bytes()
    table = int(np.frombuffer(data[:24], fmt.HEADER)[0]["alloc_table_ptr"])
    footer = np.frombuffer(data, FOOTER, 1, table - FOOTER.itemsize)[0]
    start, length = int(footer["offset"]), int(footer["length"])
    for number, record in enumerate(np.frombuffer(data[start : start + length], SECTION)):
        if record["name"].tobytes().rstrip(b"\0") == name.encode():
            return start + number * SECTION.itemsize, int(record["offset"])
    raise AssertionError(name)


def with_section(path: Path, name: str, values: np.ndarray) -> Path:
    """The file with other values in a section, all checksums right."""
    data = bytearray(path.read_bytes())
    record, at = section_at(path, name)
    data[at : at + values.nbytes] = values.tobytes()
    data[record + 32 : record + 40] = checksum(values.tobytes()).to_bytes(8, "little")
    table = int(np.frombuffer(data[:24], fmt.HEADER)[0]["alloc_table_ptr"])
    footer = table - FOOTER.itemsize
    start, length = np.frombuffer(data, "<u8", 2, footer + 16).tolist()
    data[footer + 32 : footer + 40] = checksum(bytes(data[start : start + length])).to_bytes(8, "little")
    changed = path.with_name("changed.beton")
    changed.write_bytes(data)
    return changed


def use_everything(path: Path) -> None:
    with BetonReader(path) as reader:
        describe(reader)
        if reader.indexed:
            data, offsets, lengths = reader.index_regions(np.arange(len(reader)))
            assert (offsets >= 0).all() and (lengths >= 0).all() and (offsets + lengths <= len(data)).all()
        reader.check_structure()
        for row in range(len(reader)):
            reader.index_bytes(row)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sizes=st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 200), min_size=4, max_size=4))
def test_hostile_sizes_stay_inside_of_the_file(small: Path, sizes: list[int]) -> None:
    use_everything(small)
    changed = with_section(small, "index_sizes", np.array(sizes, "<u8"))
    with BetonReader(changed) as reader:
        data, offsets, lengths = reader.index_regions(np.array([3, 1, 0, 2]))
        assert not (offsets % 8).any() and not (lengths % 8).any() and (offsets + lengths <= len(data)).all()
    with pytest.raises((BetonError, ImageError)):
        use_everything(changed)
        raise BetonError("sizes that are right, or 0")


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(["index_sizes", "index_xxh3"]), place=st.integers(0, 31), value=st.integers(1, 255))
def test_no_damaged_byte_of_the_sections_goes_unnoticed(small: Path, name: str, place: int, value: int) -> None:
    data = bytearray(small.read_bytes())
    data[section_at(small, name)[1] + place] ^= value
    changed = small.with_name("changed.beton")
    changed.write_bytes(data)
    with pytest.raises(BetonError, match=f"trailer section '{name}'"):
        use_everything(changed)


def test_an_index_of_another_image_is_found(small: Path) -> None:
    """Intact, but not what the stream gives."""
    with BetonReader(small) as reader:
        _, offsets, lengths = reader.index_regions(np.arange(4))
        checksums = [checksum(reader.index_bytes(row)) for row in range(4)]
        other = bytes(reader.index_bytes(1))
    changed = with_section(small, "index_xxh3", np.array([checksums[row] for row in (1, 1, 2, 3)], "<u8"))
    with changed.open("rb+") as file:
        file.seek(int(offsets[0]))
        file.write(other[: int(lengths[0])])
    report = verify(changed)
    assert [(bad.sample_id, bad.reason) for bad in report.bad] == [
        ("id0", "its random-access index is not that of its stream")
    ]


def test_a_page_has_room_for_the_index(tmp_path: Path) -> None:
    stream = bytes((1 << 21) - 100)
    with BetonWriter(tmp_path / "a.beton", 1) as writer:
        writer.add("x", [EncodedImage(stream, fmt.MODE_JPG, 9, 9, bytes(range(200))), 0])
    with BetonReader(tmp_path / "a.beton") as reader:
        assert reader.page_size == 1 << 22 and bytes(reader.index_bytes(0)) == bytes(range(200))
    wanted = rf"'x' takes {(1 << 21) + 128} bytes.*--page-size 4194304"
    with pytest.raises(BetonError, match=wanted), BetonWriter(tmp_path / "b.beton", 1, page_size=1 << 21) as writer:
        writer.add("x", [EncodedImage(stream, fmt.MODE_JPG, 9, 9, bytes(range(200))), 0])


def test_archives_have_no_index(samples: SampleList, tmp_path: Path) -> None:
    report = build(samples, tmp_path / "tars", options(format="webdataset", repack=True))
    assert report.indexed == 0 and report.changes["re-packed"] == len(WITHOUT)
