"""The sample data set of the demo: scikit-learn's handwritten digits, written as image files in class folders.

Nothing is downloaded: scikit-learn ships the 1,797 scans of 8×8 pixels (UCI "Optical Recognition of Handwritten
Digits", Alpaydin and Kaynak 1998, CC BY 4.0). They are enlarged to 24 to 64 pixels and inked on tinted paper.

Train and test differ in two stated ways, as they do in life: the train part is long-tailed and clean, the test part is
balanced (its class counts are thus really known) and was "photographed badly": lower contrast, blur, noise.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFilter
from pydantic import Field

from fasttrain.base.config import Settings
from fasttrain.base.errors import SourceError

CLASS_NAMES = tuple(f"digit_{digit}" for digit in range(10))  # sort as the digits do
SCAN_LEVELS = 16  # pixels of the scans are whole numbers from 0 to 16
SMALLEST_CLASS = 174  # the scans of the rarest digit, 8
MARKER = ".fasttrain-sample"  # an empty file that marks a folder as made here


class SampleSettings(Settings):
    """What is drawn, and how far the test part is from the train part.

    Attributes:
        seed: of the split, the looks and the noise.
        train_most, train_least: images of the most and the least frequent class of the train part; the classes in
            between follow a geometric series.
        test_per_class: images of each class of the test part.
        min_side, max_side: bounds of width and height in pixels.
        contrast: what is left of the test part's contrast (1 is all of it).
        blur: radius of the test part's Gaussian blur, as a share of the image's side.
        noise: standard deviation of the test part's Gaussian noise, as a share of the range of values.
    """

    seed: int = Field(default=0, ge=0)
    train_most: int = Field(default=120, ge=1)
    train_least: int = Field(default=30, ge=1)
    test_per_class: int = Field(default=50, ge=1)
    min_side: int = Field(default=24, ge=8)
    max_side: int = Field(default=64, ge=8)
    contrast: float = Field(default=0.5, gt=0, le=1)
    blur: float = Field(default=0.03, ge=0)
    noise: float = Field(default=0.10, ge=0)

    def train_counts(self) -> np.ndarray:
        """Images of each class of the train part, int64 (10,), in the order of `CLASS_NAMES`."""
        series = np.geomspace(self.train_most, self.train_least, len(CLASS_NAMES)).round().astype(np.int64)
        return np.random.default_rng([self.seed, 1]).permutation(series)

    def describe_shift(self) -> str:
        """One sentence about how the test part differs from the train part."""
        most, least = max(self.train_most, self.train_least), min(self.train_most, self.train_least)
        return (
            f"The train part is clean and long-tailed ({most} to {least} images a class); the test part is balanced "
            f"({self.test_per_class} images a class), with {self.contrast:.0%} of the contrast, a Gaussian blur of "
            f"{self.blur:.1%} of the side and Gaussian noise of {self.noise:.0%} of the range of values."
        )


@dataclass(frozen=True)
class SampleSet:
    """A sample data set on disk.

    Attributes:
        train, test: folders with one sub-folder a class.
        train_counts, test_counts: images of each class, int64 (10,).
        settings: what it was made with.
    """

    train: Path
    test: Path
    train_counts: np.ndarray
    test_counts: np.ndarray
    settings: SampleSettings


def make_sample(folder: str | Path, settings: SampleSettings | None = None) -> SampleSet:
    """Write ``train/CLASS/NNNN.jpg|png`` and ``test/CLASS/NNNN.jpg|png`` under `folder`, which must be new or empty.

    NNNN is the scan's number in scikit-learn's set: no scan is in both parts. The same settings give the same files
    (JPEG bytes may differ between versions of libjpeg).

    Raises:
        SourceError: the folder holds something already, or more images are asked for than there are scans.
    """
    settings = settings or SampleSettings()
    folder = Path(folder)
    if folder.exists() and any(folder.iterdir()):
        raise SourceError(f"{folder} is not empty; name a new folder for the sample images")
    scans, labels = _load_scans()
    counts = settings.train_counts()
    if counts.max() + settings.test_per_class > SMALLEST_CLASS:
        raise SourceError(
            f"the sample set has {SMALLEST_CLASS} scans of its rarest digit: {counts.max()} for training and "
            f"{settings.test_per_class} for testing are too many"
        )
    for label, name in enumerate(CLASS_NAMES):
        rows = np.random.default_rng([settings.seed, 2, label]).permutation(np.flatnonzero(labels == label))
        tested = rows[: settings.test_per_class]
        trained = rows[settings.test_per_class : settings.test_per_class + counts[label]]
        for part, chosen in (("train", trained), ("test", tested)):
            target = folder / part / name
            target.mkdir(parents=True, exist_ok=True)
            for row in chosen:
                _write_one(target, int(row), scans[row], settings, shifted=part == "test")
    (folder / MARKER).touch()
    test_counts = np.full(len(CLASS_NAMES), settings.test_per_class, np.int64)
    return SampleSet(folder / "train", folder / "test", counts, test_counts, settings)


def _load_scans() -> tuple[np.ndarray, np.ndarray]:
    """Scans float64 (1797, 8, 8) from 0 (paper) to 1 (ink), labels int64 (1797,)."""
    from sklearn.datasets import load_digits

    digits: Any = load_digits()
    return digits.images / SCAN_LEVELS, digits.target.astype(np.int64)


def _write_one(folder: Path, row: int, scan: np.ndarray, settings: SampleSettings, *, shifted: bool) -> None:
    """Draw a scan and write it in one of four ways that `fasttrain build` has to bring to one form."""
    # Keyed by the scan alone: an image looks the same whatever else the set holds.
    random = np.random.default_rng([settings.seed, 3, row])
    image = _draw(scan, random, settings)
    if shifted:
        image = _shift(image, random, settings)
    name = f"{row:04}"
    kind = random.integers(4)
    if kind == 0:
        image.save(folder / f"{name}.png")
    elif kind == 1:
        image.convert("L").save(folder / f"{name}.png")
    elif kind == 2:
        image.save(folder / f"{name}.jpg", quality=75)
    else:
        image.save(folder / f"{name}.jpg", quality=95, subsampling=0)


def _draw(scan: np.ndarray, random: np.random.Generator, settings: SampleSettings) -> Image.Image:
    """Enlarge a scan and print it in a dark ink on light paper."""
    side = int(random.integers(settings.min_side, settings.max_side + 1))
    width = int(np.clip(round(side * random.uniform(0.85, 1.15)), settings.min_side, settings.max_side))
    margin = np.pad(scan, 1)
    enlarged = Image.fromarray((margin * 255).astype(np.uint8)).resize((width, side), Image.Resampling.BICUBIC)
    ink_share = np.asarray(enlarged, np.float64)[..., None] / 255
    paper = random.uniform(0.80, 1.0, 3)
    ink = random.uniform(0.0, 0.35, 3)
    return Image.fromarray(((paper + (ink - paper) * ink_share) * 255).round().astype(np.uint8))


def _shift(image: Image.Image, random: np.random.Generator, settings: SampleSettings) -> Image.Image:
    """Blur, flatten and disturb an image of the test part."""
    blurred = image.filter(ImageFilter.GaussianBlur(settings.blur * max(image.size)))
    pixels = np.asarray(blurred, np.float64) / 255
    pixels = 0.5 + (pixels - 0.5) * settings.contrast
    pixels += random.normal(0.0, settings.noise, pixels.shape)
    return Image.fromarray((np.clip(pixels, 0, 1) * 255).round().astype(np.uint8))
