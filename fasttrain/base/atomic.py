"""Files that are either complete or not there: written beside their final name, synced, then renamed."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

PART_SUFFIX = ".part"


def part_path(path: str | os.PathLike[str]) -> Path:
    """The temporary name that `path` is written under until it is complete."""
    path = Path(path)
    return path.with_name(path.name + PART_SUFFIX)


def publish(part: Path, path: Path) -> None:
    """Give a finished, synced temporary file its final name, and make the rename itself durable."""
    part.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the creation, renaming and removal of files in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path to write; on success it is synced and renamed to `path`, on error it is removed.

    For writers that want a file name. Parent folders are created.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = part_path(path)
    try:
        yield part
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        publish(part, path)
    except BaseException:
        with suppress(FileNotFoundError):
            part.unlink()
        raise


@contextmanager
def atomic_open(path: str | os.PathLike[str], mode: str = "w", **kwargs: Any) -> Iterator[IO[Any]]:
    """``open(path, mode)`` whose result appears under `path` only when the block ends without an error."""
    if "b" not in mode:
        kwargs.setdefault("encoding", "utf-8")
    with atomic_path(path) as part, part.open(mode, **kwargs) as file:
        yield file
