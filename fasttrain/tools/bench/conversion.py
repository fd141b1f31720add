"""`bench build`: the conversion of one folder of images, by this package and by FFCV's writer."""

import importlib.util
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fasttrain.base.errors import ConfigError
from fasttrain.base.process import available_cores
from fasttrain.beton_build.sources import read_source
from fasttrain.tools.bench.measure import Contestant, interleaved, machine_facts, python_command, ratio, scratch_folder

OURS = ("fasttrain-keep", "fasttrain-jpg", "fasttrain-raw")
PEERS = ("ffcv-jpg", "ffcv-bytes", "ffcv-raw")
RATIOS = (
    ("fasttrain-keep", "ffcv-jpg"),
    ("fasttrain-keep", "ffcv-bytes"),
    ("fasttrain-jpg", "ffcv-jpg"),
    ("fasttrain-raw", "ffcv-raw"),
)
MIN_IMAGES = 20
TIMEOUT_S = 600.0  # FFCV's writer hangs for ever when one of its workers fails


def bench_conversion(
    source: Path,
    *,
    rounds: int = 5,
    workers: int | None = None,
    limit: int | None = None,
    repeat: int = 1,
    quality: int = 90,
    only: Sequence[str] = (),
    scratch: Path | None = None,
) -> dict[str, Any]:
    """Convert the images of `source` again and again, all contestants in turns.

    Every contestant reads the same files from a warm page cache with as many workers, and ends with an fsync of what
    it wrote, which is counted. Not counted: starting Python and importing packages.

    Args:
        rounds: how often each contestant runs.
        limit: only so many of the images.
        repeat: list every image so often, for a longer run.
        quality: of JPEG re-encoding.
        only: names of contestants; empty for all that are installed.
        scratch: folder for the output (a temporary one by default); removed afterwards.

    Returns:
        machine, results and ratios, as all ``bench`` commands give them.

    Raises:
        ConfigError: too few images, or an unknown contestant.
        SourceError: `source` cannot be read.
    """
    names = _chosen(only)
    workers = workers or available_cores()
    with scratch_folder(scratch) as folder:
        images, count, size = _linked_images(source, folder, limit, repeat)
        labels = {"work": "convert", "source": "files", "dtype": "uint8", "threads": workers}
        contestants = [
            Contestant(name, labels, _command(name, images, folder / "out.beton", workers, quality), "images/s")
            for name in names
        ]
        outcomes = interleaved(contestants, rounds, TIMEOUT_S)
    ratios = [ratio(outcomes, ours, theirs) for ours, theirs in RATIOS]
    return {
        "machine": machine_facts(),
        "images": count,
        "mean_bytes": round(size / count),
        "quality": quality,
        "results": [outcome.as_json() for outcome in outcomes],
        "ratios": [entry for entry in ratios if entry is not None],
        "missing": []
        if _has_ffcv()
        else ["ffcv: ffcv is not installed (pip install ffcv numba opencv-python-headless)"],
    }


def _chosen(only: Sequence[str]) -> list[str]:
    known = [*OURS, *(PEERS if _has_ffcv() else ())]
    unknown = [name for name in only if name not in known]
    if unknown:
        raise ConfigError(f"no contestant is named {unknown[0]!r} here; there are: {', '.join(known)}")
    return list(only) or known


def _has_ffcv() -> bool:
    return importlib.util.find_spec("ffcv") is not None


def _command(name: str, images: Path, out: Path, workers: int, quality: int) -> list[str]:
    package = "fasttrain.tools.bench"
    module = f"{package}.ffcv_writer" if name.startswith("ffcv") else f"{package}.our_writer"
    return python_command(module, name.partition("-")[2], images, out, workers, quality)


def _linked_images(source: Path, folder: Path, limit: int | None, repeat: int) -> tuple[Path, int, int]:
    """A folder of links to the images, each `repeat` times; their number and bytes. Reads them once."""
    found = [path for path in read_source(source).origins if isinstance(path, Path)][:limit]
    if len(found) < MIN_IMAGES:
        raise ConfigError(f"{source} gives {len(found)} image files; a benchmark needs {MIN_IMAGES} at the least")
    images = folder / "images"
    images.mkdir()
    size = 0
    for turn in range(repeat):
        for number, path in enumerate(found):
            (images / f"{turn}_{number:07d}{path.suffix}").symlink_to(path.resolve())
            size += len(path.read_bytes())
    return images, repeat * len(found), size


def sync_file(path: Path) -> None:
    """Bring a file and its name to the disk."""
    for entry in (path, path.parent):
        descriptor = os.open(entry, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def remove(path: Path) -> None:
    """Delete what an earlier round wrote."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
