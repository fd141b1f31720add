"""Augmented batches of the Loader: the same from every backend, in any batch, and after a resume."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fasttrain.kernels.augment import augment
from fasttrain.kernels.loading import loading_available
from fasttrain.loading.loader import Loader
from fasttrain.loading.views import train_view

BACKENDS = ["portable", *(["native"] if loading_available() else [])]
EVERYTHING = {
    "policy": "rand-m9-n2-mstd0.5-inc1",
    "erasing": {"prob": 0.5, "mode": "pixel"},
    "blur": {"prob": 0.3},
    "noise": {"prob": 0.3},
    "transpose": 0.5,
    "grid_shuffle": {"prob": 0.2},
}


def views_of(data: Path, backend: str, settings: dict[str, object], **options: object) -> dict[int, torch.Tensor]:
    """Images by row, of the samples that an epoch shows."""
    how: dict[str, object] = {"batch_size": 5, "threads": 2, "backend": backend, **options}
    view = train_view(24, color_jitter=(0.4, 0.4, 0.4, 0.1), augment=settings)
    shown = {}
    with Loader(data, view=view, **how) as loader:  # type: ignore[arg-type]
        for images, _, ids, _ in loader:
            shown.update({row: images.select(-4, place).clone() for place, row in enumerate(ids.tolist())})
    return shown


@pytest.mark.parametrize("backend", BACKENDS)
def test_views_do_not_depend_on_batches_or_threads(backend: str, photos: Path) -> None:
    first = views_of(photos, backend, EVERYTHING)
    assert len(first) == 20
    for options in ({"batch_size": 4, "threads": 1}, {"batch_size": 10, "threads": 3}, {"views": 2}):
        other = views_of(photos, backend, EVERYTHING, **options)
        for row, image in first.items():
            assert torch.equal(other[row] if image.dim() == other[row].dim() else other[row][0], image)


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_sample_is_changed_in_its_own_way(backend: str, photos: Path) -> None:
    plain = views_of(photos, backend, {})
    assert all(not torch.equal(image, plain[row]) for row, image in views_of(photos, backend, EVERYTHING).items())
    # One image under twenty names: the same pixels, other parameters.
    noisy = views_of(photos, backend, {"noise": {"prob": 1.0}})
    noise = [(noisy[row] - plain[row]).flatten() for row in sorted(plain)]
    assert np.abs(np.corrcoef(torch.stack(noise)) - np.eye(20)).max() < 0.5
    again = views_of(photos, backend, EVERYTHING, seed=1)
    assert all(not torch.equal(image, again[row]) for row, image in views_of(photos, backend, EVERYTHING).items())


@pytest.mark.skipif("native" not in BACKENDS, reason="the native extension was not built")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_native_is_portable_within_rounding(photos: Path, raw_beton: Path, dtype: torch.dtype) -> None:
    geometry = {"transpose": 0.5, "erasing": {"prob": 1.0, "mode": "pixel"}, "grid_shuffle": {"prob": 1.0}}
    for data in (photos, raw_beton):
        ours, reference = (views_of(data, backend, geometry, dtype=dtype) for backend in ("native", "portable"))
        worst = max(float((ours[row].float() - reference[row].float()).abs().max()) for row in ours)
        assert worst < 0.35  # 20 levels: small photos, jittered


@pytest.mark.skipif("native" not in BACKENDS, reason="the native extension was not built")
def test_what_is_left_to_pillow_is_augmented_too(tmp_path: Path) -> None:
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (24, 24, 3), np.uint8)
    for index in range(6):
        Image.fromarray(pixels).save(tmp_path / f"{index}.png")  # not for the native threads
    view = train_view(
        24, scale=(1, 1), ratio=(1, 1), hflip=0, mean=(0, 0, 0), std=(1, 1, 1), augment={"noise": {"prob": 1}}
    )
    with Loader(tmp_path, 6, view=view, backend="native", order="random") as loader:
        [batch] = list(loader)
        assert loader._backend.handed_over == 6  # type: ignore[attr-defined]
    values = (batch.images * 255).round().permute(0, 2, 3, 1) - torch.from_numpy(pixels).float()
    assert (values.flatten(1).std(1) > 2).all() and (values.flatten(1).std(1) < 8).all()
    assert not torch.equal(values[0], values[1])


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_resumed_epoch_shows_the_same(backend: str, photos: Path) -> None:
    view = train_view(24, augment={"policy": "augmix-m3-w3", **EVERYTHING, "transpose": 0.2} | {"policy": "augmix"})
    with Loader(photos, 5, view=view, backend=backend, seed=4) as loader:
        whole = [batch.images.clone() for batch in loader]
    with Loader(photos, 5, view=view, backend=backend, seed=4) as loader:
        steps = iter(loader)
        next(steps), next(steps)
        state = loader.state_dict()
    with Loader(photos, 5, view=view, backend=backend, seed=4) as loader:
        loader.load_state_dict(state)
        rest = [batch.images.clone() for batch in loader]
        assert all(torch.equal(one, other) for one, other in zip(rest, whole[2:], strict=True))
        following = [batch.images.clone() for batch in loader]
    assert not any(torch.equal(one, other) for one, other in zip(following, whole, strict=True))


@pytest.mark.parametrize("backend", BACKENDS)
def test_views_of_the_same_crop(backend: str, photos: Path) -> None:
    plain = views_of(photos, backend, {})
    several = views_of(photos, backend, {"policy": "augmix-m3-w3", "same_crop": True}, views=3)
    view = train_view(24, augment={"policy": "augmix-m3-w3", "same_crop": True})
    with Loader(photos, 20, view=view, backend=backend, views=3) as loader:
        [batch] = list(loader)
    first, second, third = batch.images
    assert (second != first).flatten(1).any(1).all() and (second != third).flatten(1).any(1).all()
    # Mixtures with the image itself: close to it, while other crops would be strangers.
    for one, other in zip(first, second, strict=True):
        assert np.corrcoef(one.flatten(), other.flatten())[0, 1] > 0.3
    assert several.keys() == plain.keys()


def test_a_view_shows_what_the_kernels_make_of_its_plan(raw_beton: Path) -> None:
    """From end to end: the pixels of the same view without augmentation, and the plan's program."""
    how: dict[str, object] = {"mean": (0, 0, 0), "std": (1, 1, 1)}
    with Loader(raw_beton, 20, view=train_view(24, **how)) as loader:
        [plain] = list(loader)
    view = train_view(24, augment={"policy": "rand-m9-n2-inc1", "erasing": {"prob": 0.5, "mode": "rand"}}, **how)
    with Loader(raw_beton, 20, view=view) as loader:
        [shown] = list(loader)
        planned = next(loader._planner.epoch(0)).plan
    assert torch.equal(plain.ids, shown.ids) and planned.program is not None
    pixels = (plain.images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()
    expected = augment(pixels, planned.program).permute(0, 3, 1, 2)
    assert (((shown.images * 255).round() - expected.float()).abs() > 1).float().mean() < 0.02
