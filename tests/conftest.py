"""Fixtures that several rooms share."""

import os

# Before torch is imported, here and in the processes that tests start: its threads wait by spinning, which makes the
# tiny models of the tests many times slower on a busy machine. One number for all also keeps results the same bits.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["FASTTRAIN_COMMAND_LOG"] = ""  # tests are no commands of this user

from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from PIL import Image

REPOSITORY = Path(__file__).resolve().parents[1]
# Examples have no time limit of their own: what takes long on a busy machine is not wrong.
settings.register_profile("fasttrain", deadline=None)
settings.load_profile("fasttrain")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out what takes many processes for long, and is held by smaller tests as well, unless it is asked for."""
    if os.environ.get("FASTTRAIN_THOROUGH"):
        return
    for item in items:
        if item.get_closest_marker("thorough"):
            item.add_marker(pytest.mark.skip(reason="takes long: make test-thorough, or FASTTRAIN_THOROUGH=1"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real images and scores beside the checkout; tests that want it are skipped where it is absent."""
    folder = Path(os.environ.get("FASTTRAIN_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("the folder of real test data is not there (FASTTRAIN_TEST_DATA names it)")
    return folder


@pytest.fixture(scope="session")
def colour_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 JPEG files in three class folders that a model can tell apart at once: noise over red, green or blue."""
    root = tmp_path_factory.mktemp("colours")
    generator = np.random.default_rng(0)
    for channel, name in enumerate(("red", "green", "blue")):
        (root / name).mkdir()
        for index in range(8):
            pixels = generator.integers(0, 90, (40, 48, 3), np.uint8)
            pixels[..., channel] += 150
            Image.fromarray(pixels).save(root / name / f"{index}.jpg", quality=95)
    return root


@pytest.fixture(scope="session")
def colour_masks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``images``, ``labels`` and ``pairs.beton`` of both: 12 images of noise over patches of red, green
    or blue, which are the classes; two sizes; a row of each mask is ignored."""
    from fasttrain.beton_build.build import build
    from fasttrain.beton_build.mask_lists import find_masks
    from fasttrain.beton_build.mask_rules import MaskRule
    from fasttrain.beton_build.options import BuildOptions
    from fasttrain.beton_build.sources import read_source

    root = tmp_path_factory.mktemp("masks")
    generator = np.random.default_rng(0)
    for folder in ("images", "labels"):
        (root / folder).mkdir()
    for number in range(12):
        wide, high = ((64, 48), (48, 80))[number % 2]
        classes = generator.integers(0, 3, (high // 16, wide // 16), dtype=np.uint8).repeat(16, 0).repeat(16, 1)
        pixels = generator.integers(0, 60, (high, wide, 3), np.uint8)
        pixels += (np.eye(3, dtype=np.uint8) * 180)[classes]
        Image.fromarray(pixels).save(root / "images" / f"{number:02}.png")
        classes[0] = 255
        Image.fromarray(classes).save(root / "labels" / f"{number:02}.png")
    samples = read_source(root / "images", labelled=False)
    masks = find_masks(samples, MaskRule(("red", "green", "blue")), root=root / "labels")
    build(samples, root / "pairs.beton", BuildOptions.model_validate({"mode": "raw", "workers": 1}), masks)
    return root


@pytest.fixture(scope="session")
def things(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``images`` and ``masks``: 24 photos in two class folders, of a red or a blue disc somewhere near
    the middle of a grey noise, and where the disc is (0 and 1); two sizes."""
    root = tmp_path_factory.mktemp("things")
    generator = np.random.default_rng(0)
    for number in range(24):
        name = ("red", "blue")[number % 2]
        wide, high = ((72, 64), (64, 80))[number // 2 % 2]
        rows, columns = np.mgrid[:high, :wide]
        middle = (high / 2 + generator.uniform(-6, 6), wide / 2 + generator.uniform(-6, 6))
        disc = (rows - middle[0]) ** 2 + (columns - middle[1]) ** 2 < generator.uniform(16, 20) ** 2
        pixels = generator.integers(90, 140, (high, wide, 3), np.uint8)
        pixels[disc] //= 4
        pixels[..., 0 if name == "red" else 2][disc] += 180
        for folder, picture in (("images", pixels), ("masks", disc.astype(np.uint8))):
            (root / folder / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(root / folder / name / f"{number:02}.png")
    return root
