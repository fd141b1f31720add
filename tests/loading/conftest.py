"""A small data set of pictures of odd sizes, as a folder and as `.beton` files."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fasttrain.beton_build.build import build
from fasttrain.beton_build.options import BuildOptions
from fasttrain.beton_build.sources import read_source

SIZES = [(61, 47), (40, 40), (33, 90), (128, 31), (47, 61), (75, 50), (200, 37), (50, 51), (32, 32), (99, 101)]


def picture(width: int, height: int, seed: int) -> Image.Image:
    """Like a small photo: brightness with structure at every scale, that resampling errors would show in, and colours
    that change slowly."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    brightness = 40 * np.sin(x / (3 + seed % 5) + y / 7) + generator.normal(0, 20, (height, width))
    colours = [np.sin(x / (30 + channel + seed % 5) + y / (37 - channel)) for channel in range(3)]
    return Image.fromarray(np.clip(127 + 50 * np.stack(colours, -1) + brightness[..., None], 0, 255).astype(np.uint8))


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 JPEG files of ten sizes in two class folders."""
    root = tmp_path_factory.mktemp("photos")
    for label, name in enumerate(("cat", "dog")):
        (root / name).mkdir()
        for index, (width, height) in enumerate(SIZES):
            picture(width, height, 10 * label + index).save(root / name / f"{index}.jpg", quality=90)
    return root


def _beton(photos: Path, mode: str) -> Path:
    out = photos.parent / f"{mode}.beton"
    if not out.exists():
        build(read_source(photos), out, BuildOptions.model_validate({"mode": mode, "workers": 1}))
    return out


@pytest.fixture(scope="session")
def keep_beton(photos: Path) -> Path:
    """`photos` with their own JPEG bytes."""
    return _beton(photos, "keep")


@pytest.fixture(scope="session")
def jpg_beton(photos: Path) -> Path:
    """`photos`, compressed again."""
    return _beton(photos, "jpg")


@pytest.fixture(scope="session")
def raw_beton(photos: Path) -> Path:
    """`photos` as pixels."""
    return _beton(photos, "raw")


@pytest.fixture
def broken_tree(tmp_path: Path) -> Path:
    """Eight good images, one cut short (its header is whole) and one that is no image at all."""
    folder = tmp_path / "only"
    folder.mkdir()
    for index in range(8):
        picture(40 + index, 36, index).save(folder / f"{index}.jpg")
    whole = (folder / "0.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "text.jpg").write_bytes(b"not an image")
    return tmp_path
