"""Two views of a sample as MoCo v2 wants them: each with crop, flip, colours, grey and blur of its own."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fasttrain import Loader
from fasttrain.loading.plan import plan_batch
from fasttrain.loading.views import TrainView, train_view

from .test_backends import batches, each_backend

JITTER = (0.4, 0.4, 0.4, 0.1)
AUGMENT = {"grey": 0.2, "blur": {"prob": 0.5}}


def aug_plus(size: int = 24, jitter_prob: float = 0.8) -> TrainView:
    return train_view(size, scale=(0.2, 1.0), color_jitter=JITTER, jitter_prob=jitter_prob, augment=AUGMENT)


@each_backend
def test_two_views_of_a_sample(backend: str, keep_beton: Path) -> None:
    both = batches(keep_beton, view=aug_plus(), backend=backend, views=2)
    again = batches(keep_beton, view=aug_plus(), backend=backend, views=2)
    alone = batches(keep_beton, view=aug_plus(), backend=backend)
    for two, same, one in zip(both, again, alone, strict=True):
        assert torch.equal(two.images, same.images)
        assert torch.equal(two.images[0], one.images)
        assert ((two.images[0] - two.images[1]).abs().mean((1, 2, 3)) > 0.01).all()


def test_two_views_of_images_that_stay_in_memory(keep_beton: Path) -> None:
    """The pixels are those of a decoding as a whole."""
    how = {"view": aug_plus(), "views": 2, "backend": "portable", "order": "sequential"}
    with Loader(keep_beton, 20, memory_budget="1GB", **how) as loader:
        loader.set_epoch(1)
        kept = next(iter(loader)).images
    with Loader(keep_beton, 20, **how) as loader:
        loader.set_epoch(1)
        assert torch.equal(next(iter(loader)).images, kept)


def test_both_views_are_planned_independently() -> None:
    count = 4000
    rows, keys = np.arange(count), np.arange(count, dtype=np.uint64) * 77
    plan = plan_batch(aug_plus(), rows, keys, np.full((count, 2), 50), seed=1, epoch=2, views=2)
    assert plan.program is not None
    taken = plan.program.operations != 0
    # Columns: four turns of colours, grey, blur.
    assert taken.shape == (2 * count, 6)
    shares = taken.mean(0)
    np.testing.assert_allclose(shares, [0.8] * 4 + [0.2, 0.5], atol=0.03)
    for column in (taken[:, 0], taken[:, 4], taken[:, 5], plan.hflip, plan.boxes[:, 2]):
        first, second = column[:count].astype(float), column[count:].astype(float)
        assert abs(np.corrcoef(first, second)[0, 1]) < 0.06


@pytest.mark.parametrize("augment", [{}, AUGMENT])
def test_jitter_is_left_out_of_its_share_of_the_views(augment: dict[str, object], keep_beton: Path) -> None:
    def images(**changes: object) -> torch.Tensor:
        view = train_view(24, augment=augment, **changes)
        with Loader(keep_beton, 20, view=view, backend="portable", order="sequential") as loader:
            return next(iter(loader)).images

    plain, always = images(), images(color_jitter=JITTER)
    some, never = (images(color_jitter=JITTER, jitter_prob=share) for share in (0.5, 0.0))
    torch.testing.assert_close(never, plain, atol=1e-4, rtol=0)
    unchanged = torch.isclose(some, plain, atol=1e-4).flatten(1).all(1)
    jittered = torch.isclose(some, always, atol=1e-4).flatten(1).all(1)
    assert (unchanged | jittered).all() and 3 < unchanged.sum() < 17
