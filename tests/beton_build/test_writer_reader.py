"""What is written is read back, by our reader and by one written from the format's description alone."""

import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xxhash
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fasttrain.base.errors import BetonError
from fasttrain.beton_build import format as fmt
from fasttrain.beton_build.reader import BetonReader
from fasttrain.beton_build.trailer import FOOTER, MAGIC
from fasttrain.beton_build.values import EncodedImage
from fasttrain.beton_build.writer import BetonWriter

Sample = tuple[str, EncodedImage, int]


def raw_image(width: int, height: int, seed: int) -> EncodedImage:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return EncodedImage(pixels.tobytes(), fmt.MODE_RAW, width, height)


def write(path: Path, samples: list[Sample], **options: Any) -> Path:
    with BetonWriter(path, len(samples), **options) as writer:
        for sample_id, image, label in samples:
            writer.add(sample_id, [image, label])
    return path


def read_by_the_book(path: Path) -> list[tuple[int, int, int, bytes, int]]:
    """(mode, width, height, bytes, label) of an image-and-label file, without any code of ours."""
    data = path.read_bytes()
    version, num_fields, page_size, num_samples, table_at = struct.unpack_from("<HHIQQ", data)
    assert (version, num_fields) == (2, 2)
    assert table_at % page_size == 0 and (len(data) - table_at) % 24 == 0
    records = [struct.unpack_from("<QQQ", data, at) for at in range(table_at, len(data), 24)]
    sizes = {pointer: size for _, pointer, size in records}
    samples = []
    for row in range(num_samples):
        at = 24 + 2 * 1041 + row * 24
        mode, width, height, pointer = struct.unpack_from("<BHHQ", data, at)
        (label,) = struct.unpack_from("<q", data, at + 16)
        assert pointer // page_size == (pointer + sizes[pointer] - 1) // page_size
        samples.append((mode, width, height, data[pointer : pointer + sizes[pointer]], label))
    return samples


ids = st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20), max_size=12, unique=True)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ids.filter(bool), st.integers(0, 1000))
def test_round_trip(tmp_path: Path, names: list[str], seed: int) -> None:
    rng = np.random.default_rng(seed)
    samples = [
        (name, raw_image(int(rng.integers(1, 400)), int(rng.integers(1, 400)), row), int(rng.integers(-1, 3)))
        for row, name in enumerate(names)
    ]
    path = write(tmp_path / "a.beton", samples, class_names=["a", "b", "c"])
    expected = [(1, image.width, image.height, image.data, label) for _, image, label in samples]
    assert read_by_the_book(path) == expected
    with BetonReader(path) as reader:
        assert list(reader.ids) == names
        assert reader.labels.tolist() == [label for _, _, label in samples]
        assert reader.class_names == ["a", "b", "c"]
        assert reader.keys.tolist() == [xxhash.xxh3_64_intdigest(name.encode()) for name in names]
        assert reader.sizes.tolist() == [len(image.data) for _, image, _ in samples]
        for row, (_, image, _) in enumerate(samples):
            assert bytes(reader.image_bytes(row)) == image.data
            assert reader.image(row).tobytes() == image.data
        reader.check_structure()


def test_arrays_and_their_types(tmp_path: Path) -> None:
    path = write(tmp_path / "a.beton", [("x", raw_image(5, 7, 0), 2), ("y", raw_image(9, 3, 1), -1)])
    with BetonReader(path) as reader:
        assert len(reader) == reader.num_samples == 2
        assert (reader.widths.tolist(), reader.heights.tolist()) == ([5, 9], [7, 3])
        types = [reader.widths, reader.heights, reader.modes, reader.sizes, reader.labels, reader.keys]
        assert [array.dtype.str for array in types] == ["<u2", "<u2", "|u1", "<u8", "<i8", "<u8"]
        assert reader.fields == (fmt.FieldSpec("image", 2), fmt.FieldSpec("label", 1))
        assert reader.image(0).shape == (7, 5, 3)
        assert reader.class_names is None
        assert reader.ids.take(np.array([1, 0])) == ["y", "x"]
        assert (reader.ids[-1], reader.ids[0:2]) == ("y", ["x", "y"])
        assert reader.image_bytes(0).readonly
        with pytest.raises(IndexError):
            reader.image_bytes(2)
        with pytest.raises(IndexError):
            reader.ids[2]


def test_regions_are_aligned_and_the_table_is_sorted(tmp_path: Path) -> None:
    path = write(tmp_path / "a.beton", [(str(row), raw_image(101, 103, row), 0) for row in range(300)])
    with BetonReader(path) as reader:
        assert np.all(reader.offsets % 64 == 0)
        assert np.all(np.diff(reader.offsets.astype(np.int64)) > 0)
        last = reader.offsets + reader.sizes - np.uint64(1)
        assert np.array_equal(reader.offsets // reader.page_size, last // reader.page_size)
        assert len(np.unique(reader.offsets // reader.page_size)) > 3  # several pages were needed


def test_pages_grow_with_the_largest_sample(tmp_path: Path) -> None:
    sides = [10, 900, 10, 1900, 10]  # the fourth takes 10.8 MB, beyond pages of 2, 4 and 8 MiB
    samples = [(str(side) + str(row), raw_image(side, side, row), 0) for row, side in enumerate(sides)]
    path = write(tmp_path / "a.beton", samples)
    with BetonReader(path) as reader:
        assert reader.page_size == 1 << 24
    assert [len(data) for _, _, _, data, _ in read_by_the_book(path)] == [3 * side * side for side in sides]


def test_too_small_a_page_size_names_the_sample(tmp_path: Path) -> None:
    samples = [("small", raw_image(10, 10, 0), 0), ("big", raw_image(1000, 1000, 1), 0)]
    with pytest.raises(BetonError, match=r"'big' takes 3000000 bytes.* --page-size 4194304"):
        write(tmp_path / "a.beton", samples, page_size=1 << 21)
    assert list(tmp_path.iterdir()) == []


def test_fewer_samples_than_announced(tmp_path: Path) -> None:
    with BetonWriter(tmp_path / "a.beton", 10) as writer:
        writer.add("only", [raw_image(3, 3, 0), 1])
    with BetonReader(tmp_path / "a.beton") as reader:
        assert list(reader.ids) == ["only"]
    with pytest.raises(BetonError, match="no sample"), BetonWriter(tmp_path / "b.beton", 10):
        pass
    assert not (tmp_path / "b.beton").exists()


def test_an_error_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.beton").write_text("old")
    with pytest.raises(RuntimeError), BetonWriter(tmp_path / "a.beton", 2) as writer:
        writer.add("x", [raw_image(3, 3, 0), 1])
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["a.beton"]
    assert (tmp_path / "a.beton").read_text() == "old"


def test_several_fields_in_any_order(tmp_path: Path) -> None:
    fields = [("note", 3), ("weight", 0), ("mask", 2), ("class", 1), ("other", 1), ("image", 2)]
    specs = [fmt.FieldSpec(*pair) for pair in fields]
    with BetonWriter(tmp_path / "a.beton", 2, specs) as writer:
        for row in range(2):
            writer.add(f"s{row}", [b"abc" * row, 0.5, raw_image(4, 5, row), 7, 8, raw_image(6, 7, row)])
    with BetonReader(tmp_path / "a.beton") as reader:
        assert reader.labels.tolist() == [7, 7]
        assert reader.image(1).tobytes() == raw_image(4, 5, 1).data
        reader.check_structure()


def test_values_must_fit_the_fields(tmp_path: Path) -> None:
    with pytest.raises(BetonError, match="1 values for 2 fields"), BetonWriter(tmp_path / "a.beton", 1) as writer:
        writer.add("x", [raw_image(3, 3, 0)])
    with pytest.raises(BetonError, match="'x': a float does not fit field 'label'"):
        write(tmp_path / "a.beton", [("x", raw_image(3, 3, 0), 0.5)])  # type: ignore[list-item]
    with pytest.raises(BetonError, match="more samples"), BetonWriter(tmp_path / "a.beton", 0) as writer:
        writer.add("x", [raw_image(3, 3, 0), 0])


def test_the_fingerprint_follows_the_content(tmp_path: Path) -> None:
    def fingerprint(samples: list[Sample], **options: Any) -> str:
        with BetonReader(write(tmp_path / "a.beton", samples, **options)) as reader:
            return reader.fingerprint

    base = [("x", raw_image(3, 3, 0), 0), ("y", raw_image(3, 3, 1), 1)]
    first = fingerprint(base)
    assert fingerprint(base) == first == fingerprint(base, page_size=1 << 23)
    changed = [
        fingerprint([("z", *base[0][1:]), base[1]]),
        fingerprint([("x", raw_image(3, 3, 5), 0), base[1]]),
        fingerprint([("x", base[0][1], 1), base[1]]),
        fingerprint(base, class_names=["a", "b"]),
    ]
    assert len({first, *changed}) == 5


def test_the_footer_stands_before_the_table(tmp_path: Path) -> None:
    path = write(tmp_path / "a.beton", [("x", raw_image(3, 3, 0), 0)])
    data = path.read_bytes()
    (table_at,) = struct.unpack_from("<Q", data, 16)
    assert data[table_at - FOOTER.itemsize :][:8] == MAGIC


def test_views_outlive_the_reader(tmp_path: Path) -> None:
    image = raw_image(30, 40, 0)
    path = write(tmp_path / "a.beton", [("x", image, 0)])
    with BetonReader(path) as reader:
        view, pixels = reader.image_bytes(0), reader.image(0)
    assert bytes(view) == pixels.tobytes() == image.data


def test_a_reader_can_be_sent_to_another_process(tmp_path: Path, encoded: Callable[..., bytes]) -> None:
    path = write(tmp_path / "a.beton", [("x", raw_image(30, 40, 0), 0)])
    with BetonReader(path) as reader, pickle.loads(pickle.dumps(reader)) as copy:
        assert copy.fingerprint == reader.fingerprint
