"""Files in and out of the page cache."""

import os
from pathlib import Path

import pytest

from fasttrain.base.errors import ConfigError
from fasttrain.tools.bench.page_cache import drop, resident_bytes

pytestmark = pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="this system cannot drop files")
MEMORY = Path("/dev/shm")


def test_a_file_leaves_the_cache_and_comes_back(tmp_path: Path) -> None:
    path, link = tmp_path / "file", tmp_path / "link"
    path.write_bytes(bytes(100_000))
    link.symlink_to(path)
    assert resident_bytes(path) >= 100_000
    try:
        drop([tmp_path, link, path])
    except ConfigError as reason:
        pytest.skip(str(reason))
    assert resident_bytes(path) == 0
    assert len(path.read_bytes()) == 100_000
    assert resident_bytes(path) >= 100_000


def test_an_empty_file_has_nothing_to_drop(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    drop([tmp_path / "empty"])
    assert resident_bytes(tmp_path / "empty") == 0


@pytest.mark.skipif(not os.access(MEMORY, os.W_OK), reason="there is no file system in memory")
def test_what_lies_in_memory_cannot_be_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fasttrain.tools.bench.page_cache.PAUSE_S", 0.0)
    path = MEMORY / f"fasttrain_test_{os.getpid()}"
    path.write_bytes(b"bytes")
    try:
        with pytest.raises(ConfigError, match=r"stay in the page cache.*name a folder on a disk"):
            drop([path])
    finally:
        path.unlink()
