"""Large files of FFCV's layout: their sizes are looked up once, then read from a cache that is bound to the file."""

from pathlib import Path

import numpy as np
import pytest

from fasttrain.base.errors import ImageError
from fasttrain.beton_build import format as fmt
from fasttrain.beton_build import layout, size_cache
from fasttrain.beton_build import opened as opening
from fasttrain.beton_build.reader import BetonReader

N = 300


@pytest.fixture
def foreign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file as FFCV lays it out: no trailer, its table in another order than its samples."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(size_cache, "MIN_SAMPLES", N)
    start = fmt.MIN_PAGE_SIZE
    metadata = np.zeros(N, fmt.metadata_dtype(fmt.IMAGE_AND_LABEL))
    alloc = np.zeros(N, fmt.ALLOC)
    for row in range(N):
        width = 1 + row % 7
        metadata["f0"][row] = (fmt.MODE_RAW, width, 1, start + 64 * row)
        alloc[row] = (row, start + 64 * row, 3 * width)
    header = np.zeros(1, fmt.HEADER)
    header[0] = (fmt.VERSION, 2, fmt.MIN_PAGE_SIZE, N, 2 * start)
    head = header.tobytes() + fmt.pack_fields(fmt.IMAGE_AND_LABEL) + metadata.tobytes()
    order = np.random.default_rng(0).permutation(N)
    path = tmp_path / "foreign.beton"
    path.write_bytes(head.ljust(start, b"\0") + bytes(range(256)) * (start // 256) + alloc[order].tobytes())
    return path


def test_sizes_are_looked_up_once(foreign: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = [3 * (1 + row % 7) for row in range(N)]
    with BetonReader(foreign) as first:
        assert first.sizes.tolist() == expected
    assert len(list((tmp_path / "cache").rglob("*.npy"))) == 1
    with monkeypatch.context() as patch:
        patch.delattr(layout, "sizes_from_table")
        with BetonReader(foreign) as again:
            assert again.sizes.tolist() == expected and again.image(9).shape == (1, 3, 3)
    foreign.write_bytes(foreign.read_bytes())  # another file now: another time of change
    with monkeypatch.context() as patch:
        patch.delattr(layout, "sizes_from_table")
        with pytest.raises(AttributeError):
            BetonReader(foreign)


def test_a_spoilt_cache_is_done_without(foreign: Path, tmp_path: Path) -> None:
    BetonReader(foreign).close()
    (cached,) = (tmp_path / "cache").rglob("*.npy")
    for content in (b"", b"no array", cached.read_bytes()[:-8]):
        cached.write_bytes(content)
        with BetonReader(foreign) as opened:
            assert int(opened.sizes[8]) == 6


def test_a_cache_that_cannot_be_written(foreign: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    with BetonReader(foreign) as opened:
        assert opened.image(8).shape == (1, 2, 3)


def test_wrong_cached_sizes_cannot_reach_beyond_the_file(foreign: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "load_sizes", lambda path, count: np.full(count, 2**40, np.uint64))
    with BetonReader(foreign) as opened, pytest.raises(ImageError, match="outside of the file's pages"):
        opened.image(0)
