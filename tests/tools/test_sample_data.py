"""The sample data set: the same each time, parts disjoint, as stated."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fasttrain.base.errors import SourceError
from fasttrain.tools.sample_data import CLASS_NAMES, SampleSettings, make_sample

SMALL = SampleSettings(train_most=8, train_least=4, test_per_class=3)


def contents(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.md5(path.read_bytes()).hexdigest() for path in files}


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("L"), np.float64)


def test_same_seed_same_files(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        make_sample(tmp_path / name, SMALL.model_copy(update={"seed": seed}))
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert contents(tmp_path / "a") != contents(tmp_path / "c")


def test_counts_parts_and_formats(tmp_path: Path) -> None:
    sample = make_sample(tmp_path / "set", SMALL)
    for part, counts in ((sample.train, sample.train_counts), (sample.test, sample.test_counts)):
        assert [len(list((part / name).iterdir())) for name in CLASS_NAMES] == counts.tolist()
    assert sample.train_counts.max() == 8 and sample.train_counts.min() == 4
    assert set(sample.test_counts) == {3}
    trained, tested = ({path.stem for path in part.rglob("*.*")} for part in (sample.train, sample.test))
    assert not trained & tested
    found = {(image.format, image.mode) for image in map(Image.open, sample.train.rglob("*.*"))}
    assert {("JPEG", "RGB"), ("PNG", "RGB"), ("PNG", "L")} <= found
    assert len({Image.open(path).size for path in sample.train.rglob("*.*")}) > 10


def test_the_test_part_is_shifted_as_stated(tmp_path: Path) -> None:
    clean = SMALL.model_copy(update={"contrast": 1.0, "blur": 0.0, "noise": 0.0})
    flat = SMALL.model_copy(update={"blur": 0.0})
    sets = {name: make_sample(tmp_path / name, chosen) for name, chosen in (("shifted", flat), ("clean", clean))}
    for path in sets["clean"].test.rglob("*.png"):
        before, after = pixels(path), pixels(sets["shifted"].test / path.relative_to(sets["clean"].test))
        # At the brightest places nothing is clipped: contrast falls by half, noise has the same mean.
        paper = before >= np.percentile(before, 50)
        assert abs(after[paper].mean() - (127.5 + (before[paper].mean() - 127.5) / 2)) < 5
    assert contents(sets["clean"].train) == contents(sets["shifted"].train)
    assert "50% of the contrast" in SMALL.describe_shift() and "8 to 4 images" in SMALL.describe_shift()


def test_refusals(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").touch()
    with pytest.raises(SourceError, match="not empty"):
        make_sample(tmp_path)
    with pytest.raises(SourceError, match="too many"):
        make_sample(tmp_path / "new", SampleSettings(train_most=170))
