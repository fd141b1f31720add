"""What a step of adaptation has learned from, as a picture to look at."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from fasttrain.base.atomic import atomic_open
from fasttrain.beton_build.mask_info import MaskInfo
from fasttrain.training.adaptation.stepper import Seen
from fasttrain.training.mask_pictures import colours_of, letter_size, mask_grid, overlay
from fasttrain.training.pictures import pixels_of

MAX_SAMPLES = 4
COLUMNS = ("source", "its labels", "target", "pseudo-labels", "mixed and augmented", "its labels", "weights")
_MARGIN = 4


def adaptation_grid(seen: Seen, info: MaskInfo, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """A row an image: source, target and mixture, each beside itself under its labels, and the weights of the mixture's
    pixels (white is 1); below them the classes' colours. uint8 (H, W, 3)."""
    count = min(MAX_SAMPLES, len(seen.pseudo))
    pair, target = seen.pair, seen.pair.target
    colours = colours_of(info)
    images = [pixels_of(part[:count], mean, std) for part in (pair.images, target.images, seen.strong)]
    labels = [part[:count].cpu().numpy() for part in (pair.masks, seen.pseudo, seen.mixed.labels)]
    weights = seen.mixed.weights[:count].cpu().numpy()
    shares = seen.share[:count].tolist()
    rows = []
    for number in range(count):
        row = []
        for pixels, masks in zip(images, labels, strict=True):
            row += [pixels[number], overlay(pixels[number], masks[number], colours, 0.6)]
        row.append(np.repeat((255 * weights[number, ..., None]).round().astype(np.uint8), 3, 2))
        rows.append(_with_margin(row, f"confident {shares[number]:.3f}"))
    used = np.unique(np.concatenate([part.ravel() for part in labels]))
    heading = _heading(rows[0].shape[1], images[0].shape[2])
    grid = np.concatenate([heading, *rows])
    return mask_grid([grid], info, [number for number in used.tolist() if number != 255], columns=1)


class Pictures:
    """Writes the pictures of steps into a folder, ``step_000000.png``."""

    def __init__(self, folder: Path, info: MaskInfo, mean: Sequence[float], std: Sequence[float]) -> None:
        self.folder, self.info, self.mean, self.std = folder, info, mean, std

    @torch.no_grad()
    def __call__(self, seen: Seen) -> None:
        """Write one."""
        grid = adaptation_grid(seen, self.info, self.mean, self.std)
        self.folder.mkdir(parents=True, exist_ok=True)
        with atomic_open(self.folder / f"step_{seen.step:06}.png", "wb") as file:
            Image.fromarray(grid).save(file, "PNG")


def _with_margin(pictures: Sequence[np.ndarray], told: str) -> np.ndarray:
    high = pictures[0].shape[0]
    gap = np.full((high, _MARGIN, 3), 255, np.uint8)
    row = np.concatenate([part for picture in pictures for part in (picture, gap)], 1)
    return np.concatenate([row, _line(row.shape[1], [(0, told)])])


def _heading(width: int, side: int) -> np.ndarray:
    return _line(width, [(number * (side + _MARGIN), name) for number, name in enumerate(COLUMNS)])


def _line(width: int, words: Sequence[tuple[int, str]]) -> np.ndarray:
    """Words at their places from the left: uint8 (H, W, 3)."""
    letters = letter_size(width)
    line = Image.new("RGB", (width, 3 * letters // 2), "white")
    drawing, font = ImageDraw.Draw(line), ImageFont.load_default(size=letters)
    for left, word in words:
        drawing.text((left, letters // 6), word, "black", font)
    return np.asarray(line)
