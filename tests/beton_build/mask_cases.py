"""Small images with masks, as trees of files."""

from pathlib import Path

import numpy as np
from PIL import Image

from fasttrain.beton_build.build import build
from fasttrain.beton_build.mask_lists import find_masks
from fasttrain.beton_build.mask_rules import MaskRule
from fasttrain.beton_build.options import BuildOptions
from fasttrain.beton_build.sources import read_source

SIZES = [(40, 30), (31, 47), (64, 64), (25, 33)]


def blobs(width: int, height: int, seed: int, classes: int = 5) -> np.ndarray:
    """A mask (height, width) uint8 of patches of all classes."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, classes, (-(-height // 8), -(-width // 8)), dtype=np.uint8)
    return np.ascontiguousarray(coarse.repeat(8, 0).repeat(8, 1)[:height, :width])


def write_pairs(root: Path, count: int = 4, mode: str = "L") -> list[np.ndarray]:
    """``root/images/N.png`` and ``root/labels/N.png``; the masks."""
    masks = []
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True)
    for number in range(count):
        mask = blobs(*SIZES[number % len(SIZES)], seed=number)
        colours = np.random.default_rng(number).integers(0, 255, (*mask.shape, 3), dtype=np.uint8)
        Image.fromarray(colours).save(root / "images" / f"{number}.png")
        saved = Image.fromarray(mask)
        if mode == "P":
            saved.putpalette([level for value in range(256) for level in (value, 3 * value % 256, 255 - value)])
        saved.save(root / "labels" / f"{number}.png")
        masks.append(mask)
    return masks


def build_pairs(root: Path, out: Path, rule: MaskRule | None = None, **options: object) -> Path:
    """A `.beton` of what `write_pairs` wrote."""
    samples = read_source(root / "images", labelled=False)
    masks = find_masks(samples, rule or MaskRule(), root=root / "labels")
    build(samples, out, BuildOptions.model_validate({"workers": 1, **options}), masks)
    return out
