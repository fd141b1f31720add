"""`FILE.beton.index`: made for files that hold no index, bound to them, refused where it is damaged."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fasttrain.base.errors import BetonError, ImageError, SourceError
from fasttrain.beton_build import format as fmt
from fasttrain.beton_build import sidecar
from fasttrain.beton_build.build import build
from fasttrain.beton_build.describe import describe
from fasttrain.beton_build.index import index_files
from fasttrain.beton_build.merge import merge
from fasttrain.beton_build.options import BuildOptions
from fasttrain.beton_build.reader import BetonReader
from fasttrain.beton_build.sidecar import HEADER, sidecar_path
from fasttrain.beton_build.sources import read_source
from fasttrain.beton_build.trailer import checksum
from fasttrain.beton_build.values import EncodedImage
from fasttrain.beton_build.verify import verify
from fasttrain.beton_build.writer import BetonWriter
from fasttrain.kernels import indexed
from fasttrain.kernels.jpeg import native_available

pytestmark = pytest.mark.skipif(not native_available(), reason="the native kernels were not built")

Pixels = Callable[..., np.ndarray]
Encoded = Callable[..., bytes]
N = 6


def write(path: Path, pixels: Pixels, encoded: Encoded, seed: int = 0) -> Path:
    """Six images: JPEGs, of which the second is progressive and the fifth broken; the third are pixels."""
    with BetonWriter(path, N) as writer:
        for row in range(N):
            array = pixels(140 + row, 40, seed + row)
            stream = encoded(array, progressive=row == 1)
            if row == 4:
                stream = stream[: len(stream) // 2] + bytes(len(stream) // 2)
            image = EncodedImage(stream, fmt.MODE_JPG, 140 + row, 40)
            if row == 2:
                image = EncodedImage(array.tobytes(), fmt.MODE_RAW, 140 + row, 40)
            writer.add(f"id{row}", [image, row % 2])
    return path


@pytest.fixture(params=["ours", "FFCV's"])
def plain(request: pytest.FixtureRequest, tmp_path: Path, pixels: Pixels, encoded: Encoded) -> Path:
    """A file without an index, with our trailer and without."""
    path = write(tmp_path / "a.beton", pixels, encoded)
    return path if request.param == "ours" else without_trailer(path)


def without_trailer(path: Path) -> Path:
    """The same file as FFCV would write it."""
    data = path.read_bytes()
    header = np.frombuffer(data[:24], fmt.HEADER).copy()
    table = int(header["alloc_table_ptr"][0])
    header["alloc_table_ptr"] = table - fmt.MIN_PAGE_SIZE
    path.write_bytes(header.tobytes() + data[24 : table - fmt.MIN_PAGE_SIZE] + data[table:])
    return path


def indices(reader: BetonReader) -> list[bytes]:
    data, offsets, lengths = reader.index_regions(np.arange(len(reader)))
    assert not (offsets % 8).any() and not (lengths % 8).any()
    return [bytes(data[at : at + size]) for at, size in zip(offsets.tolist(), lengths.tolist(), strict=True)]


def use_everything(path: Path) -> None:
    with BetonReader(path) as reader:
        describe(reader)
        if reader.indexed:
            indices(reader)
        reader.check_structure()
        for row in range(len(reader)):
            reader.index_bytes(row)


def test_a_file_gets_its_index(plain: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = plain.read_bytes()
    with BetonReader(plain) as reader:
        assert not reader.indexed
        fingerprint = reader.fingerprint
    report = index_files([plain], workers=2).as_json()
    [broken] = [reason for reason in report["not_indexed"] if reason.startswith("broken: ")]
    assert report["not_indexed"] == {"raw": 1, "progressive": 1, broken: 1}
    assert (report["samples"], report["indexed"], report["out"]) == (N, 3, [str(sidecar_path(plain))])
    assert f"{plain}[4]" in capsys.readouterr().err
    assert plain.read_bytes() == before
    assert sorted(path.name for path in plain.parent.iterdir()) == ["a.beton", "a.beton.index"]
    with BetonReader(plain) as reader:
        assert reader.indexed and reader.num_indexed == 3 and reader.index_where == "sidecar"
        assert reader.fingerprint == fingerprint and report["image_bytes"] == int(reader.sizes.sum())
        expected = [b"" if row in (1, 2, 4) else fresh(reader, row) for row in range(N)]
        assert indices(reader) == expected and report["bytes"] == sum(map(len, expected))
        shown = describe(reader)["index"]
        assert (shown["images"], shown["where"], shown["bytes"]) == (3, "sidecar", report["bytes"])
        name = reader.ids[4]
    assert [error.sample_id for error in verify(plain).bad] == [name]


def fresh(reader: BetonReader, row: int) -> bytes:
    index = indexed.index_jpeg(reader.image_bytes(row))
    assert index is not None
    return index.tobytes()


def has_ids(path: Path) -> bool:
    with BetonReader(path) as reader:
        return reader.has_trailer


def test_what_is_there_already_stays(plain: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = index_files([plain]).as_json()
    content = sidecar_path(plain).read_bytes()
    stamp = sidecar_path(plain).stat().st_mtime_ns
    again = index_files([plain]).as_json()
    assert "is there already" in capsys.readouterr().err and again["out"] == []
    assert (again["indexed"], again["bytes"]) == (first["indexed"], first["bytes"])
    assert sidecar_path(plain).stat().st_mtime_ns == stamp
    assert index_files([plain], force=True).out and sidecar_path(plain).read_bytes() == content


def test_several_files_and_one_that_holds_its_index(
    tmp_path: Path, tree: Path, pixels: Pixels, encoded: Encoded, capsys: pytest.CaptureFixture[str]
) -> None:
    build(read_source(tree), tmp_path / "whole.beton")
    build(read_source(tree), tmp_path / "bare.beton", BuildOptions(index=False))
    report = index_files([tmp_path / "whole.beton", tmp_path / "bare.beton"]).as_json()
    assert f"{tmp_path / 'whole.beton'} holds its index already" in capsys.readouterr().err
    assert (report["samples"], report["indexed"], report["out"]) == (24, 24, [str(tmp_path / "bare.beton.index")])
    with BetonReader(tmp_path / "whole.beton") as one, BetonReader(tmp_path / "bare.beton") as other:
        assert indices(one) == indices(other)
    merge([tmp_path / "bare.beton"], tmp_path / "merged.beton")
    with BetonReader(tmp_path / "whole.beton") as one, BetonReader(tmp_path / "merged.beton") as other:
        assert other.index_where == "inside" and indices(one) == indices(other)


def test_files_that_cannot_have_one(tmp_path: Path, tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build(read_source(tree), tmp_path / "raw.beton", BuildOptions(mode="raw"))
    report = index_files([tmp_path / "raw.beton"]).as_json()
    assert report["not_indexed"] == {"raw": 12} and report["out"] == []
    assert not sidecar_path(tmp_path / "raw.beton").exists() and "none of the images" in capsys.readouterr().err
    with BetonWriter(tmp_path / "x.beton", 1, [fmt.FieldSpec("x", fmt.FLOAT_FIELD)]) as writer:
        writer.add("a", [1.5])
    with pytest.raises(SourceError, match="no image field"):
        index_files([tmp_path / "x.beton"])
    with pytest.raises(BetonError, match="no such file"):
        index_files([tmp_path / "none.beton"])
    build(read_source(tree), tmp_path / "bare.beton", BuildOptions(index=False))
    sidecar_path(tmp_path / "bare.beton").write_text("a text of somebody else")
    with pytest.raises(SourceError, match="is no index of this file; give --force"):
        index_files([tmp_path / "bare.beton"])
    assert index_files([tmp_path / "bare.beton"], force=True).indexed == 12


def test_an_index_moves_with_its_file_and_with_no_other(
    plain: Path, pixels: Pixels, encoded: Encoded, capsys: pytest.CaptureFixture[str]
) -> None:
    index_files([plain])
    capsys.readouterr()
    moved = plain.with_name("moved.beton")
    shutil.copyfile(plain, moved)
    shutil.copyfile(sidecar_path(plain), sidecar_path(moved))
    with BetonReader(moved) as reader:
        assert reader.indexed
    ours = has_ids(plain)
    write(plain, pixels, encoded, seed=100)  # the file is built anew
    if not ours:
        without_trailer(plain)
    assert capsys.readouterr().err == ""
    for _ in range(2):
        with BetonReader(plain) as reader:
            assert not reader.indexed and reader.num_indexed == 0
    [line] = capsys.readouterr().err.splitlines()
    assert "was made of another a.beton, so it is not used" in line and f"fasttrain index --force {plain}" in line
    with pytest.raises(SourceError, match="is no index of this file"):
        index_files([plain])
    index_files([plain], force=True)
    use_everything(plain)


def test_an_interrupted_run_leaves_nothing(plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sidecar, "checksum", interrupted)
    with pytest.raises(KeyboardInterrupt):
        index_files([plain])
    assert [path.name for path in plain.parent.iterdir()] == ["a.beton"]


@pytest.mark.parametrize("field", [name for name in HEADER.names or () if name != "reserved"])
def test_a_damaged_header_is_an_error_that_names_the_file(plain: Path, field: str) -> None:
    index_files([plain])
    place = sidecar_path(plain)
    data = bytearray(place.read_bytes())
    data[HEADER.fields[field][1]] ^= 0x10  # type: ignore[index]
    place.write_bytes(data)
    with pytest.raises(BetonError, match=r"a\.beton\.index is damaged.*fasttrain index --force"):
        BetonReader(plain)


def forged(path: Path, **values: int) -> None:
    """A sidecar whose header says something else, its own checksum being right."""
    data = bytearray(sidecar_path(path).read_bytes())
    header = np.frombuffer(data[: HEADER.itemsize], HEADER).copy()
    for name, value in values.items():
        header[name] = value
    header["checksum"] = checksum(header.tobytes()[: HEADER.fields["checksum"][1]])  # type: ignore[index]
    sidecar_path(path).write_bytes(header.tobytes() + bytes(data[HEADER.itemsize :]))


def test_a_hostile_header(plain: Path) -> None:
    index_files([plain])
    good = sidecar_path(plain).read_bytes()
    for values, message in [
        ({"samples": N - 1}, f"about {N - 1} samples, not {N}"),
        ({"samples": 2**63}, "samples"),
        ({"length": 2**63}, "bytes, not"),
        ({"length": 8}, "samples"),
        ({"version": 2}, "version 2"),
    ]:
        sidecar_path(plain).write_bytes(good)
        forged(plain, **values)
        with pytest.raises(BetonError, match=message):
            BetonReader(plain)
    for cut in (0, 5, HEADER.itemsize - 1, HEADER.itemsize, len(good) - 8):
        sidecar_path(plain).write_bytes(good[:cut])
        with pytest.raises(BetonError, match=r"a\.beton\.index is damaged"):
            BetonReader(plain)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(offsets=st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 400), min_size=N + 1, max_size=N + 1))
def test_hostile_offsets_stay_inside_of_the_file(plain: Path, offsets: list[int]) -> None:
    """Their checksums right, so that only the bounds are left to save the reader."""
    if not sidecar_path(plain).exists():
        index_files([plain])
        sidecar_path(plain).with_suffix(".good").write_bytes(sidecar_path(plain).read_bytes())
    data = bytearray(sidecar_path(plain).with_suffix(".good").read_bytes())
    table = np.array(offsets, "<u8").tobytes()
    data[HEADER.itemsize : HEADER.itemsize + len(table)] = table
    sidecar_path(plain).write_bytes(data)
    forged(plain, offsets_xxh3=checksum(table))
    with BetonReader(plain) as reader:
        indices(reader)  # which slices: a length that does not fit would come out shorter
        buffer, starts, lengths = reader.index_regions(np.arange(N))
        assert (starts >= 0).all() and (lengths >= 0).all() and (starts + lengths <= len(buffer)).all()
    with pytest.raises((BetonError, ImageError)):
        use_everything(plain)
        raise BetonError("offsets that happen to be of no length, or right")


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 1, exclude_max=True), value=st.integers(1, 255))
def test_no_damaged_byte_goes_unnoticed(plain: Path, share: float, value: int) -> None:
    if not sidecar_path(plain).exists():
        index_files([plain])
    place = sidecar_path(plain)
    good = place.read_bytes()
    data = bytearray(good)
    data[int(share * len(data))] ^= value
    place.write_bytes(data)
    try:
        with pytest.raises((BetonError, ImageError)):
            use_everything(plain)
    finally:
        place.write_bytes(good)
    use_everything(plain)


def test_the_json_of_the_report_is_plain(plain: Path) -> None:
    assert json.loads(json.dumps(index_files([plain]).as_json()))["images_per_s"] > 0
