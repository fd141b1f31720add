"""What the portable backend shows a model, pixel for pixel."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import create_transform
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F

from fasttrain.base.config import Settings
from fasttrain.loading.loader import Loader
from fasttrain.loading.open_dataset import open_dataset
from fasttrain.loading.plan import plan_batch
from fasttrain.loading.portable import render
from fasttrain.loading.views import View, eval_view, train_view


def all_batches(data: Any, view: Settings, **options: Any) -> dict[str, torch.Tensor]:
    """Image by string id."""
    options = {"batch_size": 5, "threads": 2, "backend": "portable", **options}
    with Loader(data, view=view, **options) as loader:  # type: ignore[arg-type]
        found: dict[str, torch.Tensor] = {}
        for batch in loader:
            names = loader.string_ids(batch.ids[batch.valid])
            found.update(zip(names, batch.images[batch.valid], strict=True))
        return found


@pytest.mark.parametrize("crop_mode", ["center", "squash"])
@pytest.mark.parametrize(("interpolation", "crop_pct", "size"), [("bicubic", 0.875, 32), ("bilinear", 0.95, 37)])
def test_eval_views_are_timms(photos: Path, crop_mode: Any, interpolation: Any, crop_pct: float, size: int) -> None:
    settings: dict[str, Any] = {"interpolation": interpolation, "crop_pct": crop_pct, "mean": (0.5, 0.4, 0.3)}
    transform = create_transform((3, size, size), std=(0.2, 0.25, 0.3), crop_mode=crop_mode, **settings)
    ours = all_batches(photos, eval_view(size, crop_mode=crop_mode, std=(0.2, 0.25, 0.3), **settings))
    assert len(ours) == 20
    for name, image in ours.items():
        theirs = transform(Image.open(photos / name))
        # A pixel value is 1 / (255 * 0.3) = 0.013 apart from the next, so this is equality of every pixel.
        torch.testing.assert_close(image, theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_train_views_are_torchvisions_crop_resize_and_flip(photos: Path, interpolation: Any) -> None:
    dataset = open_dataset(photos)
    rows = np.arange(dataset.num_samples)
    view = train_view(29, vflip=0.5, interpolation=interpolation)
    plan = plan_batch(view, rows, dataset.keys, dataset.sizes(rows), 1, 1)
    for row in rows.tolist():
        pixels = dataset.decode(row)
        left, top, width, height = plan.boxes[row].tolist()
        expected = F.resized_crop(
            Image.fromarray(pixels), top, left, height, width, [29, 29], InterpolationMode(interpolation)
        )
        expected = F.hflip(expected) if plan.hflip[row] else expected
        expected = F.vflip(expected) if plan.vflip[row] else expected
        np.testing.assert_array_equal(render(pixels, plan, row), np.asarray(expected))


def test_flipped_eval_view_is_the_mirror_image(photos: Path) -> None:
    plain, mirrored = all_batches(photos, eval_view(24)), all_batches(photos, eval_view(24, hflip=True))
    for name, image in plain.items():
        assert torch.equal(image.flip(-1), mirrored[name])


def test_a_folder_and_its_beton_give_the_same_views(photos: Path, keep_beton: Path) -> None:
    for view in (train_view(24, color_jitter=0.4), eval_view(24)):
        folder = all_batches(photos, view, order="random", seed=3)
        beton = all_batches(keep_beton, view, order="random", seed=3)
        assert folder.keys() == beton.keys() and len(folder) == 20
        for name, image in folder.items():
            assert torch.equal(image, beton[name])


def test_modes_of_a_beton_differ_in_compression_alone(photos: Path, jpg_beton: Path, raw_beton: Path) -> None:
    views: list[View] = [train_view(24), eval_view(24)]
    for view in views:
        raw, jpg, folder = (all_batches(data, view, order="random") for data in (raw_beton, jpg_beton, photos))
        assert list(raw) == list(jpg) == list(folder)  # the same order
        for name, image in folder.items():
            assert torch.equal(raw[name], image)
            assert (jpg[name] - image).abs().mean() < 0.3  # the same crop; noise compressed again is not equal
        assert open_dataset(raw_beton).class_names == open_dataset(photos).class_names == ["cat", "dog"]


@pytest.mark.parametrize(
    "options", [{"batch_size": 1}, {"batch_size": 7}, {"threads": 1}, {"threads": 3, "prefetch": 5}]
)
def test_views_do_not_depend_on_how_they_are_made(keep_beton: Path, options: dict[str, Any]) -> None:
    view = train_view(16, color_jitter=(0.3, 0.3, 0.3, 0.1))
    with Loader(keep_beton, 4, view=view, seed=1) as loader:
        expected = {int(row): image for batch in loader for row, image in zip(batch.ids, batch.images, strict=True)}
    with Loader(keep_beton, **{"batch_size": 4, "view": view, "seed": 1, **options}) as loader:
        for batch in loader:
            for row, image in zip(batch.ids.tolist(), batch.images, strict=True):
                if row in expected:
                    assert torch.equal(image, expected[row])


def test_views_do_not_depend_on_the_world(keep_beton: Path) -> None:
    view = train_view(16)
    with Loader(keep_beton, 6, view=view, world=1, rank=0) as loader:
        alone = [(batch.ids, batch.images) for batch in loader]
    ranks = []
    for rank in range(3):
        with Loader(keep_beton, 2, view=view, world=3, rank=rank) as loader:
            assert len(loader) == 3
            ranks.append([(batch.ids, batch.images) for batch in loader])
    for step, (ids, images) in enumerate(alone):
        assert torch.equal(torch.cat([dealt[step][0] for dealt in ranks]), ids)
        assert torch.equal(torch.cat([dealt[step][1] for dealt in ranks]), images)
