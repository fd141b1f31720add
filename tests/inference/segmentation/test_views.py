"""Whole images, windows, scales and flips."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from fasttrain.base.errors import ConfigError
from fasttrain.inference.labels import ClassMismatchError
from fasttrain.inference.segmentation.evaluate import evaluate_masks
from fasttrain.inference.segmentation.forward import slide, whole
from fasttrain.inference.segmentation.scores import ViewSettings, open_views, score_images
from fasttrain.loading.segmentation_views import whole_view

PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


class Scaled(nn.Module):
    """Each channel is the score of a class: the right answer where the pixels are as they were."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return 20 * images


@pytest.mark.parametrize(("crop", "stride", "at_once"), [(16, 16, 1), (16, 7, 3), (20, 13, 64), (100, 50, 2)])
def test_windows_of_what_looks_at_each_pixel_alone_make_up_the_whole(crop, stride, at_once):
    torch.manual_seed(0)
    model, images = nn.Conv2d(3, 4, 1), torch.randn(3, 3, 37, 50)
    with torch.no_grad():
        assert torch.allclose(slide(model, images, crop, stride, at_once), whole(model, images), atol=1e-6)


def test_each_pixel_is_the_mean_of_the_windows_it_lies_in():
    seen = torch.zeros(1, 1, 10, 14)
    calls = []

    def model(windows: torch.Tensor) -> torch.Tensor:
        calls.append(windows.shape)
        return torch.full((len(windows), 1, *windows.shape[-2:]), float(len(calls)))

    result = slide(model, seen, 8, 5, at_once=1)
    assert calls == [(1, 1, 8, 8)] * 6  # from 0 and 2 on downwards, from 0, 5 and 6 on across
    corners = [(top, left) for top in (0, 2) for left in (0, 5, 6)]
    wanted, times = np.zeros((10, 14)), np.zeros((10, 14))
    for number, (top, left) in enumerate(corners, 1):
        wanted[top : top + 8, left : left + 8] += number
        times[top : top + 8, left : left + 8] += 1
    assert np.allclose(result[0, 0].numpy(), wanted / times)
    with pytest.raises(ValueError, match="leave pixels out"):
        slide(model, seen, 4, 5)


def scores(
    beton: Any, how: ViewSettings, model: nn.Module | None = None, size: int = 0, **options: Any
) -> dict[int, Any]:
    found: dict[int, Any] = {}
    with open_views(beton, 4, whole_view(size, **PLAIN), how, threads=1, **options) as loaders:
        for scored in score_images(model or Scaled(), loaders, how):
            found |= dict(zip(scored.rows, scored.scores, strict=True))
    return found


def test_scores_have_the_images_own_size_and_mirror_images_are_mirrored_back(colour_masks):
    beton = colour_masks / "pairs.beton"
    plain = scores(beton, ViewSettings())
    assert len(plain) == 12 and {tuple(one.shape) for one in plain.values()} == {(3, 48, 64), (3, 80, 48)}
    for how in ({"hflip": True}, {"mode": "slide", "crop": 24}, {"mode": "slide", "crop": 24, "hflip": True}):
        other = scores(beton, ViewSettings.model_validate(how))
        assert all(torch.allclose(plain[row], other[row], atol=1e-5) for row in plain)


def test_several_scales_are_the_mean_of_their_probabilities(colour_masks):
    beton = colour_masks / "pairs.beton"
    single = [scores(beton, ViewSettings(scales=(factor,))) for factor in (0.5, 1.0, 1.75)]
    together = scores(beton, ViewSettings(scales=(0.5, 1.0, 1.75)))
    for row, mean in together.items():
        assert torch.allclose(mean, sum(one[row] for one in single) / 3, atol=1e-5)
        assert torch.allclose(mean.sum(0), torch.ones(()), atol=1e-4)


def test_no_padding_comes_before_the_model(colour_masks):
    seen = set()

    class Watching(Scaled):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            seen.add(tuple(images.shape))
            return super().forward(images)

    scores(colour_masks / "pairs.beton", ViewSettings(), Watching(), size=30)
    assert {shape[2:] for shape in seen} == {(30, 40), (50, 30)}
    assert sum(math.prod(shape[:1]) for shape in seen) >= 4


def measured(beton: Any, names: Any = None, classes: int = 3, **options: Any) -> dict[str, Any]:
    how = ViewSettings()
    with open_views(beton, options.pop("batch", 4), whole_view(**PLAIN), how, threads=1, **options) as loaders:
        return evaluate_masks(Scaled(), loaders, classes, names, how)


def test_evaluation_counts_every_pixel_once_whatever_batch_and_rank(colour_masks, monkeypatch):
    beton = colour_masks / "pairs.beton"
    result = measured(beton)
    truth = [np.asarray(Image.open(path)) for path in sorted((colour_masks / "labels").iterdir())]
    assert result["samples"] == 12 and result["pixels"] == sum(int((mask != 255).sum()) for mask in truth)
    assert result["miou"] == 1.0 and result["aacc"] == 1.0 and result["iou"] == [1.0] * 3
    assert measured(beton, batch=5) == result
    parts = [measured(beton, batch=2, rank=rank, world=3) for rank in range(3)]
    assert sum(part["pixels"] for part in parts) == result["pixels"]
    assert sum(part["samples"] for part in parts) == 12


def test_classes_are_joined_by_name_and_others_are_refused(colour_masks):
    beton = colour_masks / "pairs.beton"
    turned = measured(beton, ["blue", "green", "red"])
    assert turned["iou"][1] == 1.0 and turned["iou"][0] == turned["iou"][2] == 0.0
    more = measured(beton, ["red", "green", "blue"], classes=3)
    assert more["miou"] == 1.0
    with pytest.raises(ClassMismatchError, match="pairs"):
        measured(beton, ["red", "green"], classes=2)
    with pytest.raises(ClassMismatchError, match="3 classes"):
        measured(beton, None, classes=2)


def test_a_model_of_fixed_size_says_so(colour_masks):
    class Fixed(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            assert images.shape[-1] == 32, "Input width doesn't match model."
            return images

    with pytest.raises(ConfigError, match=r"4 images of 64x48 pixels .*--mode slide"):
        scores(colour_masks / "pairs.beton", ViewSettings(), Fixed())
