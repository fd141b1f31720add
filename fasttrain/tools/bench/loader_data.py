"""The same images in every form that a contestant of the loader benchmark reads."""

import math
import shutil
import tarfile
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from fasttrain.base.errors import ConfigError
from fasttrain.beton_build.build import build
from fasttrain.beton_build.options import BuildOptions
from fasttrain.beton_build.origins import stored_bytes
from fasttrain.beton_build.reader import BetonReader
from fasttrain.beton_build.sources import SampleList, read_source
from fasttrain.loading.views import IMAGENET_MEAN, IMAGENET_STD
from fasttrain.tools.bench.measure import python_command, run_to_end

RAW_SHORT_SIDE = 256
RAW_BYTES = 3 * RAW_SHORT_SIDE * 384  # of a photo with sides of 2 to 3
ROOM_LEFT = 1 << 30  # bytes of a disk that others may need
LOOKED_AT = 256  # images that the expected mean and standard deviation come from
FFCV_WRITER_S = 600.0


def choose_samples(source: Path, limit: int) -> SampleList:
    """At most `limit` samples of a source, evenly spread over it and then shuffled, the same in each call.

    Shuffled, because what is counted of an eval pass is to have the mean of all.

    Raises:
        SourceError: it cannot be read.
    """
    samples = read_source(source)
    rows = np.linspace(0, len(samples) - 1, min(limit, len(samples))).astype(np.int64)
    np.random.default_rng(0).shuffle(rows)
    return samples.take(rows.tolist())


def copies(samples: SampleList, count: int) -> SampleList:
    """The samples `count` times, under names of their own."""
    repeated = samples.take(np.tile(np.arange(len(samples)), count).tolist())
    repeated.ids = [f"{number // len(samples):05d}/{name}" for number, name in enumerate(repeated.ids)]
    return repeated


def check_room(samples: SampleList, folder: Path, forms: float, raw: bool) -> None:
    """Make sure that the images fit into a folder's disk.

    Args:
        forms: how often their bytes are stored.
        raw: whether their pixels are, besides.

    Raises:
        ConfigError: they do not.
    """
    needed = forms * sum(map(stored_bytes, samples.origins)) + raw * RAW_BYTES * len(samples)
    free = shutil.disk_usage(folder).free
    if needed > free - ROOM_LEFT:
        raise ConfigError(
            f"{len(samples):,} images of which none is read twice take {needed / 1e9:.1f} GB, but {folder} has "
            f"{free / 1e9:.1f} GB free, of which 1 is to stay; name a folder on a larger disk with --scratch, or fewer "
            "contestants with --only"
        )


def write_beton(samples: SampleList, out: Path, raw: bool, workers: int) -> None:
    """A `.beton` file of the images as they are, or of pixels with a shorter side of 256."""
    options = BuildOptions(mode="raw", min_resolution=RAW_SHORT_SIDE) if raw else BuildOptions(mode="keep")
    build(samples, out, options.model_copy(update={"workers": workers}))


def write_files(beton: Path, folder: Path) -> int:
    """Store each image of a `.beton` file as ``CLASS/NUMBER.jpg``, bytes as they are; their mean size in bytes."""
    total = 0
    with BetonReader(beton) as reader:
        for row in range(reader.num_samples):
            path = folder / f"{max(int(reader.labels[row]), 0):05d}" / f"{row:07d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            total += path.write_bytes(reader.image_bytes(row))
        return round(total / reader.num_samples)


def write_tars(files: Path, folder: Path, shards: int) -> None:
    """WebDataset archives of those files, with their labels, in the order of the numbers."""
    folder.mkdir()
    paths = sorted(files.glob("*/*.jpg"), key=lambda path: path.name)
    for shard in range(min(shards, len(paths))):
        with tarfile.open(folder / f"{shard:05d}.tar", "w") as archive:
            for path in paths[shard::shards]:
                for suffix, content in (("jpg", path.read_bytes()), ("cls", str(int(path.parent.name)).encode())):
                    member = tarfile.TarInfo(f"{path.stem}.{suffix}")
                    member.size = len(content)
                    archive.addfile(member, BytesIO(content))


def write_ffcv_jpg(files: Path, links: Path, out: Path, workers: int) -> None:
    """A `.beton` file that FFCV's writer made, every image re-encoded at quality 90.

    Raises:
        ConfigError: it failed, or hung.
    """
    links.mkdir()
    for path in files.glob("*/*.jpg"):
        (links / path.name).symlink_to(path.resolve())
    command = python_command("fasttrain.tools.bench.ffcv_writer", "jpg", links, out, workers, 90)
    _, error = run_to_end(command, FFCV_WRITER_S)
    if error is not None:
        raise ConfigError(f"FFCV's writer could not make its file: {error}; name the contestants with --only")


def expected_statistics(files: Path) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation by channel of the normalised images, each image with equal weight."""
    paths = sorted(files.glob("*/*.jpg"), key=lambda path: path.name)
    step = math.ceil(len(paths) / LOOKED_AT)
    pixels = np.stack([_thumbnail(path) for path in paths[::step]]).reshape(-1, 3) / 255
    normalised = (pixels - IMAGENET_MEAN) / IMAGENET_STD
    return tuple(normalised.mean(0).tolist()), tuple(normalised.std(0).tolist())


def _thumbnail(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        # One pixel of each cell and no average of it: an average would lose the spread.
        return np.asarray(image.convert("RGB").resize((64, 64), Image.Resampling.NEAREST))


def warm(paths: Iterable[Path]) -> None:
    """Read files once, so that they lie in the page cache."""
    buffer = bytearray(1 << 22)
    for path in paths:
        if path.is_file():
            with path.open("rb", buffering=0) as file:
                while file.readinto(buffer):
                    pass
