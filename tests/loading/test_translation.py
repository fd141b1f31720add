"""Views that are moved, and flips in turns."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from fasttrain import Loader
from fasttrain.base.errors import ConfigError, LoaderError
from fasttrain.loading.batch import Batch
from fasttrain.loading.optional import why_absent
from fasttrain.loading.plan import BatchPlan, plan_batch
from fasttrain.loading.views import TrainView, View, eval_view, parse_view, train_view

from .test_backends import batches, each_backend, equal

WHOLE: dict[str, Any] = {"scale": (1, 1), "ratio": (1, 1), "hflip": 0.0}


@pytest.fixture(scope="module")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 PNG images of 16 x 16 pixels of noise, so that every backend has the same pixels."""
    root = tmp_path_factory.mktemp("squares")
    generator = np.random.default_rng(0)
    for index in range(12):
        path = root / "ab"[index % 2] / f"{index}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (16, 16, 3), np.uint8)).save(path)
    return root


def plan(view: View, count: int, epoch: int = 0, first: int = 0) -> BatchPlan:
    keys = np.arange(first, first + count, dtype=np.uint64)
    return plan_batch(view, np.arange(count), keys, np.full((count, 2), 16), 5, epoch)


def test_alternating_flips_show_each_sample_both_ways_in_two_epochs() -> None:
    view = train_view(16, hflip="alternating")
    flips = [plan(view, 4000, epoch).hflip for epoch in range(4)]
    assert (flips[0] ^ flips[1]).all()
    assert np.array_equal(flips[0], flips[2]) and np.array_equal(flips[1], flips[3])
    assert abs(flips[0].mean() - 0.5) < 0.03
    assert np.array_equal(plan(view, 10, 1, first=70).hflip, flips[1][70:80])


def test_every_translation_is_equally_likely_and_a_samples_own() -> None:
    view = train_view(16, translate=1)
    shift = plan(view, 9000).shift
    assert shift is not None
    places, counts = np.unique(shift.corners, axis=0, return_counts=True)
    assert places.tolist() == [[x, y] for x in (-1, 0, 1) for y in (-1, 0, 1)]
    assert (np.abs(counts - 1000) < 160).all()
    part, later = plan(view, 10, first=70).shift, plan(view, 9000, epoch=1).shift
    assert part is not None and later is not None
    assert np.array_equal(part.corners, shift.corners[70:80])
    assert not np.array_equal(later.corners, shift.corners)
    assert plan(train_view(16), 3).shift is None


def padded(images: torch.Tensor, by: int, padding: str, view: View) -> torch.Tensor:
    if padding == "reflect":
        return F.pad(images, (by,) * 4, "reflect")
    mean, std = torch.tensor(view.mean)[:, None, None], torch.tensor(view.std)[:, None, None]
    return F.pad(images * std + mean, (by,) * 4) * (1 / std) - mean / std


@each_backend
@pytest.mark.parametrize("padding", ["reflect", "black"])
@pytest.mark.parametrize("jitter", [0.0, 0.4])
def test_a_batch_is_the_unmoved_one_padded_and_cropped(
    squares: Path, backend: str, padding: str, jitter: float
) -> None:
    if jitter and padding == "black":
        pytest.skip("the padding takes part in the jitter")
    view = train_view(16, translate=3, padding=padding, color_jitter=(jitter, 0.0, jitter), **WHOLE)
    still = view.model_copy(update={"translate": 0})
    with Loader(squares, 6, view=view) as loader:
        keys = loader.dataset.keys
    options = {"backend": backend, "seed": 5}
    for moved, plain in zip(
        batches(squares, view=view, **options), batches(squares, view=still, **options), strict=True
    ):
        assert torch.equal(moved.ids, plain.ids)
        rows = moved.ids.numpy()
        shift = plan_batch(view, rows, keys[rows], np.full((len(rows), 2), 16), 5, 0).shift
        assert shift is not None
        wide = padded(plain.images, 3, padding, view)
        for image, source, (left, top) in zip(moved.images, wide, shift.corners.tolist(), strict=True):
            torch.testing.assert_close(image, source[:, top + 3 : top + 19, left + 3 : left + 19], atol=2e-5, rtol=0)
        assert moved.images.is_contiguous(memory_format=torch.channels_last)


def test_images_of_the_views_size_keep_their_pixels(squares: Path) -> None:
    view = train_view(16, **WHOLE, mean=(0.0,) * 3, std=(1.0,) * 3)
    with Loader(squares, 12, view=view) as loader:
        batch = next(iter(loader))
        pixels = [torch.from_numpy(loader.dataset.decode(row).copy()) for row in batch.ids.tolist()]
    torch.testing.assert_close(batch.images.permute(0, 2, 3, 1) * 255, torch.stack(pixels).float(), atol=1e-4, rtol=0)


def test_moved_batches_are_the_same_whatever_batch_size_and_threads_and_go_on_from_a_state(squares: Path) -> None:
    view = train_view(16, translate=2, hflip="alternating", scale=(0.5, 1))

    def joined(found: list[Batch]) -> torch.Tensor:
        return torch.cat([batch.images for batch in found])

    whole = batches(squares, view=view, batch_size=4, memory_budget="1GB")
    assert torch.equal(joined(whole), joined(batches(squares, view=view, batch_size=2, threads=1)))
    with Loader(squares, 4, view=view) as first, Loader(squares, 4, view=view) as second:
        next(iter(first))
        second.load_state_dict(first.state_dict())
        assert equal(list(second), whole[1:])


def test_two_views_of_a_sample_are_moved_differently(squares: Path) -> None:
    view = train_view(16, translate=3, **WHOLE)
    with Loader(squares, 12, view=view, views=2) as loader, Loader(squares, 12, view=view) as single:
        images, one = next(iter(loader)).images, next(iter(single)).images
    assert images.shape == (2, 12, 3, 16, 16)
    assert torch.equal(images[0], one) and not torch.equal(images[0], images[1])


def test_an_eval_view_is_shifted(squares: Path) -> None:
    view = eval_view(16, crop_pct=1.0, interpolation="bilinear")
    plain = batches(squares, view=view)
    for right, down in ((1, 1), (-2, 3)):
        moved = batches(squares, view=view.model_copy(update={"shift": (right, down)}))
        for batch, source in zip(moved, plain, strict=True):
            wide = F.pad(source.images, (3,) * 4, "reflect")
            expected = wide[:, :, 3 - down : 19 - down, 3 - right : 19 - right]
            torch.testing.assert_close(batch.images, expected, atol=2e-5, rtol=0)


def test_moves_that_cannot_be_made_are_refused() -> None:
    with pytest.raises(ConfigError, match="less than the 8 pixels"):
        train_view(8, translate=8)
    with pytest.raises(ConfigError, match="less than the 8 pixels"):
        eval_view(8, shift=(0, -8))
    with pytest.raises(ConfigError, match="hflip"):
        train_view(8, hflip="sometimes")
    view = train_view(8, hflip="alternating", translate=1, padding="black")
    assert parse_view(view.model_dump(mode="json")) == view
    assert isinstance(view, TrainView)


@pytest.mark.skipif(why_absent("dali") is not None, reason=str(why_absent("dali")))
def test_dalis_own_reader_moves_nothing() -> None:
    from fasttrain.loading.dali_tars import DaliTars

    for view in (train_view(16, translate=1), train_view(16, hflip="alternating"), eval_view(16, shift=(1, 0))):
        with pytest.raises(LoaderError, match=r"read a \.beton with Loader"):
            DaliTars("no.tar", 4, view=view)
