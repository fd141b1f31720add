"""Shards of a build, and files that are merged."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fasttrain.base.errors import ImageError, SourceError
from fasttrain.beton_build import format as fmt
from fasttrain.beton_build.build import build
from fasttrain.beton_build.merge import merge
from fasttrain.beton_build.options import BuildOptions
from fasttrain.beton_build.reader import BetonReader
from fasttrain.beton_build.sources import read_source
from fasttrain.beton_build.split import shard_rows
from fasttrain.beton_build.values import EncodedImage
from fasttrain.beton_build.verify import verify
from fasttrain.beton_build.writer import BetonWriter


@given(st.integers(1, 500), st.integers(1, 40))
def test_shards_are_a_partition(count: int, shards: int) -> None:
    if shards > count:
        with pytest.raises(SourceError, match="cannot be dealt"):
            shard_rows(count, 0, shards)
        return
    parts = [shard_rows(count, index, shards) for index in range(shards)]
    assert np.concatenate(parts).tolist() == list(range(count))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("mode", ["keep", "raw", "proportion"])
def test_merged_shards_are_the_unsharded_file(tree: Path, tmp_path: Path, mode: str) -> None:
    samples = read_source(tree)
    build(samples, tmp_path / "whole.beton", BuildOptions.model_validate({"mode": mode}))
    shards = []
    for index in range(3):
        shards.append(tmp_path / f"{index}.beton")
        build(samples, shards[-1], BuildOptions.model_validate({"mode": mode, "shard": (index, 3)}))
    result = merge(shards, tmp_path / "merged.beton")
    assert (result["samples"], result["classes"], result["sources"]) == (12, 3, 3)
    assert (tmp_path / "merged.beton").read_bytes() == (tmp_path / "whole.beton").read_bytes()


def test_shards_of_a_split(tree: Path, tmp_path: Path) -> None:
    samples = read_source(tree)
    build(samples, tmp_path / "whole.beton", BuildOptions(val_fraction=0.4))
    for index in range(2):
        build(samples, tmp_path / f"{index}.beton", BuildOptions(val_fraction=0.4, shard=(index, 2)))
    for suffix in ("", "_val"):
        merge([tmp_path / f"{index}{suffix}.beton" for index in range(2)], tmp_path / "m.beton", force=True)
        with BetonReader(tmp_path / "m.beton") as merged, BetonReader(tmp_path / f"whole{suffix}.beton") as whole:
            assert merged.fingerprint == whole.fingerprint and list(merged.ids) == list(whole.ids)


def write(path: Path, ids: list[str], names: list[str] | None = None, extra: bool = False) -> Path:
    specs = [*fmt.IMAGE_AND_LABEL, *([fmt.FieldSpec("note", fmt.JSON_FIELD)] if extra else [])]
    with BetonWriter(path, len(ids), specs, class_names=names) as writer:
        for row, name in enumerate(ids):
            image = EncodedImage(bytes([row]) * 12, fmt.MODE_RAW, 2, 2)
            writer.add(name, [image, row % 2, *([{"of": name}] if extra else [])])
    return path


def test_further_fields_are_merged(tmp_path: Path) -> None:
    one, two = (write(tmp_path / f"{name}.beton", [name, name + "2"], extra=True) for name in ("x", "y"))
    merge([one, two], tmp_path / "m.beton")
    with BetonReader(tmp_path / "m.beton") as reader:
        assert [reader.value(row, "note") for row in range(4)] == [{"of": name} for name in ("x", "x2", "y", "y2")]
    assert verify(tmp_path / "m.beton").ok


def test_what_does_not_fit_together(tmp_path: Path) -> None:
    plain = write(tmp_path / "plain.beton", ["a", "b"])
    cases: list[tuple[list[Path], str]] = [
        ([plain, write(tmp_path / "named.beton", ["c", "d"], ["p", "q"])], "different classes"),
        ([plain, write(tmp_path / "extra.beton", ["c", "d"], extra=True)], r"other fields.*note \(json\)"),
        ([plain, write(tmp_path / "same.beton", ["b", "c"])], "1 ids occur more than once in the files to merge: 'b'"),
    ]
    for sources, message in cases:
        with pytest.raises(SourceError, match=message):
            merge(sources, tmp_path / "m.beton")
        assert not (tmp_path / "m.beton").exists()
    with pytest.raises(SourceError, match="is one of the files to merge"):
        merge([plain], plain, force=True)
    with pytest.raises(SourceError, match="already exists"):
        merge([plain], tmp_path / "same.beton")
    with pytest.raises(SourceError, match="must end in"):
        merge([plain], tmp_path / "m.txt")


def test_a_damaged_image_is_not_passed_on(tmp_path: Path, pixels: Callable[..., np.ndarray]) -> None:
    path = write(tmp_path / "a.beton", ["a", "b"])
    with BetonReader(path) as reader:
        offset = int(reader.offsets[1])
    data = bytearray(path.read_bytes())
    data[offset] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(ImageError, match=r"'b'.*checksum does not hold"):
        merge([path], tmp_path / "m.beton")
    assert not (tmp_path / "m.beton").exists() and not (tmp_path / "m.beton.part").exists()
