"""Images whose colours tell the class of every pixel, so that image and mask show whether they part."""

from pathlib import Path

import numpy as np
from PIL import Image

from fasttrain.beton_build.build import build
from fasttrain.beton_build.mask_lists import find_masks
from fasttrain.beton_build.mask_rules import MaskRule
from fasttrain.beton_build.options import BuildOptions
from fasttrain.beton_build.sources import read_source

CLASSES = 5
LEVELS = np.array([20, 65, 110, 155, 200], np.uint8)  # grey of each class; the fill of views is another one
FILL = (245, 245, 245)
SIZES = [(96, 72), (64, 92), (86, 86), (117, 67)]  # no patch is cut to a sliver
EXACT = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


def class_map(width: int, height: int, seed: int) -> np.ndarray:
    """(height, width) uint8: large patches of the classes, that no flip or turn leaves as they are."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, CLASSES, (-(-height // 24), -(-width // 24)), dtype=np.uint8)
    return np.ascontiguousarray(coarse.repeat(24, 0).repeat(24, 1)[:height, :width])


def make_pairs(root: Path, count: int = 8) -> Path:
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True)
    for number in range(count):
        classes = class_map(*SIZES[number % len(SIZES)], seed=number)
        grey = LEVELS[classes]
        Image.fromarray(np.stack([grey] * 3, -1)).save(root / "images" / f"{number}.png")
        Image.fromarray(classes).save(root / "labels" / f"{number}.png")
    return root


def make_beton(root: Path, out: Path, mode: str = "raw", names: bool = True, count: int = 8) -> Path:
    """A `.beton` of such pairs."""
    if not (root / "images").exists():
        make_pairs(root, count)
    samples = read_source(root / "images", labelled=False)
    rule = MaskRule(tuple("abcde")) if names else MaskRule()
    options = BuildOptions.model_validate({"mode": mode, "workers": 1, "quality": 100})
    build(samples, out, options, find_masks(samples, rule, root=root / "labels"))
    return out


def seen_classes(images: np.ndarray) -> np.ndarray:
    """(B, H, W) of what images (B, 3, H, W) in 0–1 show: a class, 255 for the fill, -1 between the levels."""
    levels = images[:, 0] * 255
    result = np.full(levels.shape, -1)
    for number, level in [*enumerate(LEVELS), (255, FILL[0])]:
        result[np.abs(levels - level) < 6] = number
    return result


def eroded(masks: np.ndarray, radius: int = 2) -> np.ndarray:
    """(B, H, W) bool: pixels around which the mask is the same for `radius` pixels; those at the edge of the view are
    looked at, too."""
    inner = np.ones(masks.shape, bool)
    padded = np.pad(masks, ((0, 0), (radius, radius), (radius, radius)), mode="edge")
    height, width = masks.shape[1:]
    for y in range(2 * radius + 1):
        for x in range(2 * radius + 1):
            inner &= padded[:, y : y + height, x : x + width] == masks
    return inner


def agreement(images: np.ndarray, masks: np.ndarray, radius: int = 2) -> float:
    """Share of the pixels away from borders at which image and mask show the same class."""
    inner = eroded(masks, radius)
    assert inner.mean() > 0.2
    return float((seen_classes(images) == masks)[inner].mean())
