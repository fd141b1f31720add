"""Masks go wherever their images go: under every view and operation, on every backend."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fasttrain.base.errors import ConfigError, LoaderError
from fasttrain.kernels.loading import Geometry
from fasttrain.kernels.pixels import FlatImages
from fasttrain.loading.augment.mixing import Mixer, Mixing
from fasttrain.loading.backend import available_backends
from fasttrain.loading.batch import MaskedBatch, split_batch
from fasttrain.loading.loader import Loader
from fasttrain.loading.open_dataset import BetonDataset
from fasttrain.loading.order import Sampling
from fasttrain.loading.plan import plan_batch
from fasttrain.loading.plan_segmentation import framed
from fasttrain.loading.portable import render
from fasttrain.loading.rare_classes import RareClasses
from fasttrain.loading.resident_backend import in_frames
from fasttrain.loading.segmentation_views import WholeView, segmentation_view, whole_view
from fasttrain.loading.views import View, eval_view, parse_view, train_view

from .mask_cases import CLASSES, EXACT, FILL, LEVELS, SIZES, agreement, class_map, make_beton, make_pairs

BACKENDS = [name for name in available_backends() if name != "ffcv"]
AUGMENTED = {"fill": FILL}

VIEWS: dict[str, View] = {
    "crop": train_view(48, **EXACT, vflip=0.5),
    "eval": eval_view(40, **EXACT),
    "squash": eval_view(40, **EXACT, crop_mode="squash", crop_pct=1.0, hflip=True),
    "moved": train_view(48, **EXACT, translate=9, padding="reflect", scale=(0.5, 1.0)),
    "segmentation": segmentation_view(64, **EXACT, augment=AUGMENTED),
    "small": segmentation_view(128, **EXACT, scale=(0.5, 0.9), vflip=0.5, augment=AUGMENTED),
    "stretched": segmentation_view(96, **EXACT, short=70, ratio=(0.5, 2.0), augment=AUGMENTED),
    "whole": whole_view(**EXACT),
    "whole scaled": whole_view(60, **EXACT, hflip=True, anchor="center", multiple=1),
    "whole squashed": whole_view(60, **EXACT, crop_mode="squash", multiple=1),
}
OPERATIONS: dict[str, dict[str, Any]] = {
    "transpose": {"transpose": 0.7},
    "grid": {"grid_shuffle": {"prob": 1.0, "cells": 3}},
    "elastic": {"policy": "corrupt-n1-s2"},
    "erasing": {"erasing": {"prob": 1.0, "mode": "const"}},
    "dropout": {"dropout": {"prob": 1.0, "size": 12}},
    "geometry": {"policy": "rand-m9-n3-mstd0.5-inc1"},
    "trivial": {"policy": "trivial"},
    "augmix": {"policy": "augmix-m5-w3"},
    "auto": {"policy": "v0"},
}


@pytest.fixture(scope="module")
def betons(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = make_pairs(tmp_path_factory.mktemp("pairs"))
    return {mode: make_beton(root, root / f"{mode}.beton", mode) for mode in ("raw", "keep")}


def batches(path: Path, view: View, backend: str = "auto", **settings: Any) -> list[MaskedBatch]:
    settings = {"order": "sequential", "rank": 0, "world": 1, "threads": 2, **settings}
    with Loader(path, 4, view=view, masks=True, backend=backend, **settings) as loader:
        return [batch for batch in loader if isinstance(batch, MaskedBatch)]


@pytest.mark.parametrize("stored", ["raw", "keep"])
@pytest.mark.parametrize("name", VIEWS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_masks_show_what_their_images_show(betons: dict[str, Path], backend: str, name: str, stored: str) -> None:
    view, fill = VIEWS[name], 255
    found = batches(betons[stored], view, backend)
    assert len(found) == 2
    for batch in found:
        images, masks = batch.images.numpy(), batch.masks.numpy()
        assert masks.shape == (4, *images.shape[2:]) and masks.dtype == np.uint8
        if name.startswith("whole"):  # whose fill is the mean, here black
            beyond = masks == fill
            assert np.abs(images.transpose(0, 2, 3, 1)[beyond]).max(initial=0) == 0
            images = np.where(beyond[:, None], FILL[0] / 255, images)
        assert agreement(images, masks, 3) > 0.995


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_no_operation_parts_them(betons: dict[str, Path], backend: str, name: str) -> None:
    """Each is compared with the mask of an image that only geometry touches: colours are left out by the operations'
    own nature here, so images are made of the mask's class levels and looked at where they still have one."""
    view = train_view(64, **EXACT, scale=(0.5, 1.0), augment={**OPERATIONS[name], "fill": FILL, "warp": "nearest"})
    parted = matched = 0
    for epoch in range(3):
        with Loader(betons["raw"], 4, view=view, masks=True, backend=backend, order="random", seed=epoch) as loader:
            for batch in loader:
                assert isinstance(batch, MaskedBatch)
                for image, mask in zip(batch.images.numpy(), batch.masks.numpy(), strict=True):
                    same, other = constancy(image, mask)
                    matched, parted = matched + same, parted + other
    assert matched > 20
    assert parted <= (0.1 if name == "elastic" else 0.05) * matched  # snow and the like have patterns


def constancy(image: np.ndarray, mask: np.ndarray) -> tuple[int, int]:
    """How many classes of a mask show one colour, and how many show several: photometric operations change colours, but
    those of a class all alike (in large patches, off their borders)."""
    from .mask_cases import eroded

    inner = eroded(mask[None], 4)[0]
    same = other = 0
    for number in range(CLASSES):
        pixels = image[:, inner & (mask == number)]
        if pixels.shape[1] < 30:
            continue
        middle = np.median(pixels, axis=1, keepdims=True)
        alike = (np.abs(pixels - middle).max(0) < 0.12).mean()
        same, other = same + (alike > 0.9), other + (alike <= 0.9)
    return same, other


@pytest.mark.parametrize("name", [*VIEWS, *OPERATIONS])
def test_masks_are_the_same_on_every_backend(betons: dict[str, Path], name: str) -> None:
    view = VIEWS.get(name) or train_view(64, **EXACT, augment=OPERATIONS[name])
    first, *others = ([batch.masks for batch in batches(betons["keep"], view, backend)] for backend in BACKENDS)
    for masks in others:
        assert all(torch.equal(one, other) for one, other in zip(first, masks, strict=True))


def test_batches_and_threads_change_nothing(betons: dict[str, Path]) -> None:
    view = segmentation_view(64, augment={"policy": "rand-m9-n2-mstd0.5-inc1"})
    masks = {}
    for size, threads in ((2, 1), (8, 3)):
        with Loader(betons["raw"], size, view=view, masks=True, threads=threads, order="random", seed=3) as loader:
            loader.set_epoch(2)
            for batch in loader:
                assert isinstance(batch, MaskedBatch)
                for row, mask in zip(batch.ids.tolist(), batch.masks, strict=True):
                    assert torch.equal(masks.setdefault(row, mask), mask)
    assert len(masks) == 8


def test_a_batch_unpacks_as_ever(betons: dict[str, Path]) -> None:
    [batch, _] = batches(betons["raw"], train_view(32), views=2, order="random")
    images, labels, ids, valid = batch
    assert images.shape == (2, 4, 3, 32, 32) and batch.masks.shape == (2, 4, 32, 32)
    assert labels.tolist() == [-1] * 4 and ids.shape == valid.shape == (4,)
    changed = batch._replace(labels=labels + 1)
    assert changed.labels.tolist() == [0] * 4 and changed.masks is batch.masks
    parts = split_batch(batch, 3)
    assert [part.masks.shape[1] for part in parts if isinstance(part, MaskedBatch)] == [3, 1]
    with Loader(betons["raw"], 4) as loader:
        assert not isinstance(next(iter(loader)), MaskedBatch)


def test_what_is_not_there_counts_for_nothing(betons: dict[str, Path]) -> None:
    with Loader(betons["raw"], 5, view=whole_view(), masks=True) as loader:
        _, last = loader
        assert isinstance(last, MaskedBatch)
        assert last.valid.tolist() == [True] * 3 + [False] * 2
        assert (last.masks[3:] == 255).all() and not (last.masks[:3] == 255).all()


def test_whole_images_are_shown_pixel_for_pixel(betons: dict[str, Path]) -> None:
    with Loader(betons["raw"], 8, view=whole_view(**EXACT), masks=True) as loader:
        assert loader.view.frame == (128, 96)  # type: ignore[union-attr]
        [batch] = loader
        originals = loader.masks_of(batch.ids)
    assert isinstance(batch, MaskedBatch)
    for number, mask in enumerate(batch.masks.numpy()):
        width, height = SIZES[number % 4]
        expected = class_map(width, height, number)
        assert np.array_equal(mask[:height, :width], expected) and np.array_equal(originals[number], expected)
        assert (mask[height:] == 255).all() and (mask[:, width:] == 255).all()


def test_crops_avoid_a_single_class(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    mask = np.zeros((64, 256), np.uint8)
    mask[:, 220:] = 1
    mask[:, :30] = 255
    Image.fromarray(mask).convert("RGB").save(tmp_path / "images/0.png")
    Image.fromarray(mask).save(tmp_path / "labels/0.png")
    beton = make_beton(tmp_path, tmp_path / "a.beton")
    shares = {}
    for limit in (1.0, 0.75):
        view = segmentation_view(64, scale=(1, 1), cat_max_ratio=limit, tries=30)
        largest = []
        with Loader(beton, 1, view=view, masks=True, order="random") as loader:
            for epoch in range(30):
                loader.set_epoch(epoch)
                [batch] = loader
                assert isinstance(batch, MaskedBatch)
                counts = np.bincount(batch.masks.numpy().ravel(), minlength=256)[:2]
                largest.append(counts.max() / counts.sum())
        shares[limit] = np.array(largest)
    assert (shares[1.0] > 0.75).mean() > 0.6
    assert (shares[0.75] > 0.76).mean() < 0.2


def test_erased_masks_can_be_kept(betons: dict[str, Path]) -> None:
    erasing = {"erasing": {"prob": 1.0, "area": (0.2, 0.3)}}
    kept, ignored = (
        batches(betons["raw"], train_view(64, augment={**erasing, "erased_masks": what}))[0].masks
        for what in ("keep", "ignore")
    )
    gone = ignored == 255
    assert 0.1 < gone.float().mean() < 0.4 and not (kept == 255).any()
    assert torch.equal(kept[~gone], ignored[~gone])


def test_several_files_are_one(betons: dict[str, Path], tmp_path: Path) -> None:
    nameless = make_beton(betons["raw"].parent, tmp_path / "nameless.beton", names=False)
    with Loader([betons["raw"], betons["keep"]], 16, view=eval_view(32), masks=True) as loader:
        [batch] = loader
        assert isinstance(batch, MaskedBatch)
        assert torch.equal(batch.masks[:8], batch.masks[8:])
        assert loader.dataset.mask_pixels().shape == (16, CLASSES + 1)
    with pytest.raises(LoaderError, match="different classes"):
        Loader([betons["raw"], nameless], 4)


def test_what_has_no_masks_says_so(betons: dict[str, Path], keep_beton: Path, photos: Path) -> None:
    for data in (keep_beton, photos, [keep_beton, betons["raw"]]):
        with pytest.raises(LoaderError, match=r"masks|classes"):
            Loader(data, 4, masks=True)
    if "ffcv" in available_backends():
        with pytest.raises(LoaderError, match="bytes field"):
            Loader(betons["raw"], 4, view=train_view(32), masks=True, backend="ffcv")


@pytest.mark.parametrize("name", VIEWS)
def test_views_are_stored_and_read(name: str) -> None:
    assert parse_view(VIEWS[name].model_dump()) == VIEWS[name]


def test_memory_budget_keeps_masks(betons: dict[str, Path]) -> None:
    view = segmentation_view(64)
    kept = batches(betons["keep"], view, memory_budget="1GB")
    plain = batches(betons["keep"], view)
    assert all(torch.equal(one.masks, other.masks) for one, other in zip(kept, plain, strict=True))


# --- rare classes -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve images of class 0; of class 1 every second, of class 2 one, with a few pixels."""
    root = tmp_path_factory.mktemp("uneven")
    for folder in ("images", "labels"):
        (root / folder).mkdir()
    for number in range(12):
        mask = np.zeros((64, 64), np.uint8)
        mask[:20, : 30 * (number % 2)] = 1
        if number == 3:
            mask[50:58, 50:58] = 2
        Image.fromarray(mask).convert("RGB").save(root / "images" / f"{number:02}.png")
        Image.fromarray(mask).save(root / "labels" / f"{number:02}.png")
    return make_beton(root, root / "a.beton")


def test_rare_classes_are_drawn_as_the_paper_says(uneven: Path) -> None:
    rare = RareClasses(temperature=0.5, min_pixels=500)
    with Loader(uneven, 4, sampling=Sampling(rare_classes=rare, draws=600), view=train_view(16), seed=1) as loader:
        pixels = loader.dataset.mask_pixels()[:, :3].sum(0)
        table = rare.table(loader.dataset, loader.rows)
        expected = np.exp((1 - pixels / pixels.sum()) / 0.5)
        assert np.allclose(table.probabilities[:3], expected / expected.sum()) and not table.probabilities[3:].any()
        assert np.isclose(table.weights.sum(), 1)
        by_class = [table.positions[table.classes == number].tolist() for number in range(3)]
        assert by_class == [list(range(12)), [1, 3, 5, 7, 9, 11], [3]]
        rows = np.concatenate([batch.ids.numpy() for batch in loader])
        assert len(rows) == 600
        share = (rows == 3).mean()
        wanted = table.weights[table.positions == 3].sum()
        assert abs(share - wanted) < 0.01
        loader.set_epoch(0)
        assert np.array_equal(rows, np.concatenate([batch.ids.numpy() for batch in loader]))


def test_crops_are_drawn_until_they_hold_the_class(uneven: Path) -> None:
    rare = Sampling(rare_classes=RareClasses(temperature=0.001, min_pixels=50), draws=200)
    found = {}
    for least in (0, 30):
        view = segmentation_view(32, scale=(1, 1), hflip=0.0, cat_max_ratio=1.0, tries=40, min_focus=least)
        with Loader(uneven, 10, view=view, masks=True, sampling=rare) as loader:
            masks = torch.cat([batch.masks for batch in loader if isinstance(batch, MaskedBatch)])
        found[least] = float(((masks == 2).sum((1, 2)) >= 30).float().mean())
    assert found[0] < 0.5 and found[30] > 0.9


def test_rare_classes_need_masks(uneven: Path, keep_beton: Path) -> None:
    with pytest.raises(LoaderError, match="no masks"):
        Loader(keep_beton, 4, sampling=Sampling(rare_classes=RareClasses()))
    with pytest.raises(LoaderError, match="leave class_balance"):
        Loader(uneven, 4, sampling=Sampling(rare_classes=RareClasses(), class_balance=1.0))
    with pytest.raises(LoaderError, match="above 0"):
        RareClasses(temperature=0)


# --- mixing -----------------------------------------------------------------------------------------------------------


def test_cutmix_cuts_both(betons: dict[str, Path]) -> None:
    [batch, _] = batches(betons["raw"], train_view(64, **EXACT, scale=(1, 1), ratio=(1, 1)))
    images, masks = batch.images.clone(), batch.masks.clone()
    mixer = Mixer(Mixing(cutmix=1.0, mix_mode="elem"), CLASSES, seed=2)
    mixed, targets = mixer(batch, 0)
    assert targets is None and isinstance(mixed, MaskedBatch)
    assert not torch.equal(mixed.masks, masks)
    for number in range(4):  # each pixel is the image's own or its partner's, and the mask says the same
        own = (mixed.images[number] == images[number]).all(0)
        assert torch.equal(mixed.masks[number][own], masks[number][own]) or not own.all()
        other = ~own
        assert torch.equal(mixed.masks[number][other], masks[3 - number][other])
    with pytest.raises(ConfigError, match="cutmix goes with masks"):
        Mixer(Mixing(mixup=0.2), CLASSES)(batch, 0)


def test_frames_of_images_on_a_device(betons: dict[str, Path]) -> None:
    """What the resident backend makes of views that do not fill their frame, against Pillow's."""
    with BetonDataset(betons["raw"])._reader as reader:
        pixels = [reader.image(row) for row in range(8)]
    flat = torch.from_numpy(np.concatenate([image.ravel() for image in pixels]))
    sizes = np.array([image.shape[1::-1] for image in pixels])
    starts = np.cumsum([0, *(image.size for image in pixels)])[:8]
    views = [segmentation_view(100, scale=(0.4, 1.2), vflip=0.5), whole_view(hflip=True, anchor="center")]
    for view in views:
        plan = plan_batch(fitted(view, sizes), np.arange(8), np.arange(8, dtype=np.uint64), sizes, seed=1)
        assert plan.frame is not None and not plan.frame.filled.all()
        shape = (plan.boxes, plan.resized, plan.offsets, plan.hflip, plan.vflip, plan.interpolation)
        made = in_frames(FlatImages(flat, starts, sizes), Geometry(*shape), plan.frame, np.arange(8)).numpy()
        assert made.shape == (8, plan.height, plan.width, 3)
        for entry, image in enumerate(pixels):
            expected = np.empty((plan.height, plan.width, 3), np.uint8)
            expected[:] = plan.frame.fill
            left, top, width, height = plan.places_of(entry)
            expected[top : top + height, left : left + width] = render(image, plan, entry)
            assert np.abs(made[entry].astype(int) - expected).max() <= 1


def fitted(view: View, sizes: np.ndarray) -> View:
    return framed(view, sizes) if isinstance(view, WholeView) else view


@pytest.mark.parametrize("backend", BACKENDS)
def test_oblong_frames_are_filled(tmp_path: Path, backend: str) -> None:
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    for number in range(3):
        classes = class_map(96, 72, number)
        Image.fromarray(LEVELS[classes]).convert("RGB").save(tmp_path / "images" / f"{number}.png")
        Image.fromarray(classes).save(tmp_path / "labels" / f"{number}.png")
    beton = make_beton(tmp_path, tmp_path / "a.beton", "keep")
    for view in (whole_view(36, **EXACT, multiple=1), whole_view(36, **EXACT, multiple=1, hflip=True)):
        found = []
        for one in (backend, "portable"):
            with Loader(beton, 3, view=view, masks=True, backend=one) as loader:
                found += list(loader)
        assert found[0].images.shape == (3, 3, 36, 48)
        assert (found[0].images - found[1].images).abs().max() < 0.06
        assert all(isinstance(batch, MaskedBatch) and (batch.masks < CLASSES).all() for batch in found)


@pytest.mark.parametrize("backend", BACKENDS)
def test_extents_are_where_the_masks_count(betons: dict[str, Path], tmp_path: Path, backend: str) -> None:
    """Of the images without masks they are what is not ignored of the images with them."""
    images = tmp_path / "images"
    make_pairs(tmp_path)
    augment = {"fill": FILL, "policy": "rand-m9-n3-mstd0.5-inc1"}
    view = segmentation_view(100, **EXACT, scale=(0.5, 1.2), cat_max_ratio=1, augment=augment)
    how: dict[str, Any] = {"view": view, "backend": backend, "order": "sequential", "threads": 1}
    with (
        Loader(betons["raw"], 8, masks=True, **how) as with_masks,
        Loader(betons["raw"], 8, masks="extent", **how) as without,
    ):
        [wanted], [found] = list(with_masks), list(without)
        assert isinstance(wanted, MaskedBatch) and isinstance(found, MaskedBatch)
        assert torch.equal(found.masks, torch.where(wanted.masks == 255, 255, 0).to(torch.uint8))
        assert 0 < (found.masks == 255).float().mean() < 1
    with Loader(images, 8, masks="extent", **how) as plain:
        [batch] = plain
        assert isinstance(batch, MaskedBatch)
        assert set(batch.masks.unique().tolist()) == {0, 255}


def test_crops_cannot_look_at_extents(betons: dict[str, Path]) -> None:
    with pytest.raises(LoaderError, match="use cat_max_ratio=1"):
        Loader(betons["raw"], 8, view=segmentation_view(64), masks="extent")
