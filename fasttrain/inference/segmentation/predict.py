"""Masks of images as files: palette PNGs whose indices are the classes, and overlays to look at."""

import time
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fasttrain.base.atomic import atomic_open
from fasttrain.base.distributed import require_agreement, sum_over_ranks
from fasttrain.base.errors import ConfigError
from fasttrain.base.palette import default_palette, write_palette_png
from fasttrain.beton_build.mask_info import IGNORE
from fasttrain.inference.forward import Amp
from fasttrain.inference.segmentation.overlays import overlay
from fasttrain.inference.segmentation.scores import ViewSettings, open_views, score_images
from fasttrain.inference.skipped import report_skipped
from fasttrain.loading.open_dataset import Data
from fasttrain.models.segmentation.opened import OpenedSegmenter


def predict_masks(
    opened: OpenedSegmenter,
    data: Data,
    out: str | Path,
    how: ViewSettings = ViewSettings(),
    *,
    threshold: float = 0.0,
    overlays: str | Path | None = None,
    batch_size: int = 8,
    device: torch.device | str = "cpu",
    amp: Amp = "off",
    ids: Sequence[str] | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Write the mask of every image, at its own size, as a PNG named like the image's id.

    Each image is predicted once over all ranks, and written by the rank that did it.

    Args:
        out: folder for the masks.
        threshold: pixels whose probability is below it count for nothing (255), whatever their class.
        overlays: folder for pictures of the images under their masks.
        ids: only these samples.
        options: of the `Loader`.

    Returns:
        {samples, out, images_per_s, classes: [{class, pixels, kept}], ignored, threshold, skipped}: for each class the
        share of all pixels that were taken for it, and the share of these that the threshold left; `ignored` is the
        share of all pixels that it did not leave. images_per_s counts every view of an image.

    Raises:
        ConfigError: two samples would be written to one file, or one outside of the folder.
    """
    if not 0 <= threshold < 1:
        raise ConfigError(f"a threshold is a probability from 0 to below 1, not {threshold}")
    started = time.monotonic()
    counts = torch.zeros((2, opened.num_classes), dtype=torch.int64, device=device)
    samples = torch.zeros(1, dtype=torch.int64, device=device)
    palette = opened.palette or default_palette(opened.num_classes)
    with open_views(data, batch_size, opened.view, how, ids, device=device, **options) as loaders:
        first = loaders[0]
        require_agreement({"data set": first.dataset.fingerprint, "checkpoint": opened.weights_hash})
        files = mask_files(first.rows.tolist(), first.string_ids(first.rows), first.dataset.name)
        for scored in score_images(opened.module, loaders, how, amp=amp, crop=opened.crop):
            masks = _decide(scored.scores, threshold, counts)
            for row, mask in zip(scored.rows, masks.cpu().numpy(), strict=True):
                _write(Path(out) / files[row], mask, palette)
                if overlays is not None:
                    picture = overlay(first.dataset.decode(row), mask, palette)
                    _write_picture(Path(overlays) / files[row], picture)
            samples += len(scored.rows)
        skipped = report_skipped(entry for loader in loaders for entry in loader.skipped)
    seconds = time.monotonic() - started
    done = int(sum_over_ranks(samples).item())
    return {
        "samples": done,
        "out": str(out),
        "images_per_s": done * how.count / seconds,
        "threshold": threshold,
        **_shares(sum_over_ranks(counts).tolist(), opened.class_names),
        "skipped": skipped,
    }


def thresholded(probabilities: Tensor, threshold: float) -> Tensor:
    """Masks uint8 (B, H, W) from probabilities (B, C, H, W): the most probable class, or 255 where its probability is
    below the threshold. The same threshold holds for every class."""
    sure, classes = probabilities.max(1)
    return torch.where(sure >= threshold, classes, IGNORE).to(torch.uint8)


def mask_files(rows: Sequence[int], names: Sequence[str], data: str) -> dict[int, PurePosixPath]:
    """Where the mask of each row goes, below a folder: its id, ending in ``.png``.

    Args:
        names: the ids of these rows.
        data: what the data set is called in messages.

    Raises:
        ConfigError: two samples would share a file, or one would lie outside of the folder.
    """
    files: dict[int, PurePosixPath] = {}
    taken: dict[PurePosixPath, str] = {}
    for row, name in zip(rows, names, strict=True):
        place = PurePosixPath(name.replace("\\", "/")).with_suffix(".png") if name.strip("./\\ ") else None
        if place is None or place.is_absolute() or ".." in place.parts or "\0" in name:
            raise ConfigError(f"sample {name!r} of {data} cannot name a file within the folder")
        if place in taken:
            raise ConfigError(
                f"samples {taken[place]!r} and {name!r} would both be written as {place}; choose by --ids"
            )
        files[row], taken[place] = place, name
    return files


def _decide(probabilities: Tensor, threshold: float, counts: Tensor) -> Tensor:
    """Masks uint8 (B, H, W); `counts` (2, C) gains the pixels of each class, all and those above the threshold."""
    masks = thresholded(probabilities, threshold)
    argmax = probabilities.argmax(1).flatten()
    kept = (masks.flatten() != IGNORE).long()
    counts[0].scatter_add_(0, argmax, torch.ones_like(argmax))
    counts[1].scatter_add_(0, argmax, kept)
    return masks


def _shares(counts: list[list[int]], names: Sequence[str] | None) -> dict[str, Any]:
    total = sum(counts[0])
    classes = [
        {
            "class": names[number] if names else str(number),
            "pixels": taken / total if total else None,
            "kept": kept / taken if taken else None,
        }
        for number, (taken, kept) in enumerate(zip(*counts, strict=True))
    ]
    return {"classes": classes, "ignored": 1 - sum(counts[1]) / total if total else None}


def _write(path: Path, mask: np.ndarray, palette: Sequence[tuple[int, int, int]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_palette_png(path, mask, palette)


def _write_picture(path: Path, picture: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_open(path, "wb") as file:
        Image.fromarray(picture).save(file, "PNG")
