"""Masks of objects: the published arithmetic, both signs, files that build takes, and going on after a stop."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from fasttrain.base.config import load_settings
from fasttrain.base.errors import ConfigError
from fasttrain.beton_build.build import build
from fasttrain.beton_build.mask_lists import find_masks
from fasttrain.beton_build.mask_rules import MaskRule
from fasttrain.beton_build.options import BuildOptions
from fasttrain.beton_build.sources import read_source
from fasttrain.inference.objects import masks as masks_module
from fasttrain.inference.objects.maps import map_images
from fasttrain.inference.objects.masks import write_object_masks
from fasttrain.inference.objects.refine import refined
from fasttrain.inference.objects.settings import CrfSettings, ObjectMaskSettings
from fasttrain.inference.segmentation.scores import open_views
from fasttrain.loading.batch import MaskedBatch
from fasttrain.loading.loader import Loader
from fasttrain.loading.segmentation_views import segmentation_view
from fasttrain.models.objects.opened import OpenedMapper, open_mapper
from fasttrain.training.objects.run import train_mapper
from fasttrain.training.objects.settings import ObjectSettings

PLAIN = ObjectMaskSettings(crf=None, scales=(1.0,), hflip=False)


@pytest.fixture(scope="module")
def opened(things: Path, tmp_path_factory: pytest.TempPathFactory) -> OpenedMapper:
    """A mapper that has seen the discs of `things`."""
    values = {
        "data": str(things / "images"),
        "model": "test_resnet",
        "stride": 8,
        "size": 64,
        "epochs": 8,
        "batch_size": 12,
        "seed": 1,
        "out": str(tmp_path_factory.mktemp("mapper")),
        "device": "cpu",
        "threads": 1,
        "optimizer": {"lr": 0.02},
        "winograd": "off",
    }
    return open_mapper(train_mapper(load_settings(ObjectSettings, values, "objects train")).run)


def written(opened: OpenedMapper, things: Path, out: Path, how: ObjectMaskSettings, **options: Any) -> dict[str, Any]:
    return write_object_masks(opened, things / "images", out, how, threads=1, **options)


def read(folder: Path) -> dict[str, np.ndarray]:
    return {str(path.relative_to(folder)): np.asarray(Image.open(path)) for path in sorted(folder.rglob("*.png"))}


def overlap(found: dict[str, np.ndarray], things: Path) -> float:
    """Mean IoU of the objects."""
    true = read(things / "masks")
    assert found.keys() == true.keys()
    return float(np.mean([(found[n] & true[n]).sum() / (found[n] | true[n]).sum() for n in true]))


def test_masks_learned_without_masks_are_of_the_objects(opened: OpenedMapper, things: Path, tmp_path: Path) -> None:
    crude = written(opened, things, tmp_path / "crude", ObjectMaskSettings(crf=None))
    fine = written(opened, things, tmp_path / "fine", ObjectMaskSettings(), pictures=4, maps=tmp_path / "maps")
    assert crude["made"] == fine["made"] == fine["samples"] == 24 and fine["empty"] == 0
    found = read(tmp_path / "fine")
    assert {value for mask in found.values() for value in np.unique(mask)} == {0, 1}
    assert fine["object_share"] == pytest.approx(np.mean([mask.mean() for mask in found.values()]))
    crude_overlap = overlap(read(tmp_path / "crude"), things)
    assert crude_overlap > 0.5
    assert overlap(found, things) > crude_overlap + 0.1  # the CRF finds the discs' edges
    maps = read(tmp_path / "maps")
    assert maps.keys() == found.keys() and all(one.max() == 255 for one in maps.values())
    picture = np.asarray(Image.open(fine["pictures"]))
    assert fine["pictures"] == str(tmp_path / "fine_pictures.png") and picture.shape == (2 * 230 + 6, 3 * 454 + 6, 3)


@pytest.mark.parametrize("hflip", [False, True])
def test_maps_are_added_up_over_views_and_divided_by_their_maximum(
    hflip: bool, opened: OpenedMapper, things: Path
) -> None:
    how = ObjectMaskSettings(scales=(0.5, 1.0), hflip=hflip).views
    ids = ["blue/01.png", "blue/03.png"]  # of two sizes
    opened = replace(opened, shows="objects")
    with open_views(things / "images", 2, opened.view, how, ids, threads=1) as loaders:
        batches = [next(iter(loader)) for loader in loaders]
        with open_views(things / "images", 2, opened.view, how, ids, threads=1) as again:
            found = {
                row: one
                for mapped in map_images(opened, again, how)
                for row, one in zip(mapped.rows, mapped.maps, strict=True)
            }
        sizes = loaders[0].dataset.sizes(np.array(sorted(found)))
    for row, (wide, high) in zip(sorted(found), sizes.tolist(), strict=True):
        total = torch.zeros(1, 1, high, wide)
        for scale, batch in zip(how.scales, batches, strict=True):
            image = batch.images[batch.ids == row][:, :, : round(scale * high), : round(scale * wide)]
            with torch.inference_mode():
                maps = opened.module.maps(image)
                if hflip:
                    maps = maps + opened.module.maps(image.flip(3)).flip(3)
            total += F.interpolate(maps, (high, wide), mode="bilinear")
        torch.testing.assert_close(found[row], (total / total.max())[0, 0], rtol=1e-4, atol=1e-5)


def test_either_sign_gives_the_same_masks(opened: OpenedMapper, things: Path, tmp_path: Path) -> None:
    one = replace(opened, shows="objects")
    written(one, things, tmp_path / "one", PLAIN)
    norm = opened.module.head.get_submodule("norm")
    for parameter in norm.parameters():
        parameter.data.neg_()  # so that each map is 1 minus what it was
    try:
        written(replace(opened, shows="background"), things, tmp_path / "other", PLAIN)
        written(one, things, tmp_path / "wrong", PLAIN)
    finally:
        for parameter in norm.parameters():
            parameter.data.neg_()
    first, other, wrong = (read(tmp_path / name) for name in ("one", "other", "wrong"))
    assert np.mean([(first[name] == other[name]).mean() for name in first]) > 0.999
    assert np.mean([(first[name] == wrong[name]).mean() for name in first]) < 0.8


def test_a_stopped_run_goes_on_and_other_settings_are_refused(
    opened: OpenedMapper, things: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = written(opened, things, tmp_path / "whole", PLAIN)
    done, real = [], masks_module.write_palette_png

    def failing(path: Path, *arguments: Any) -> None:
        if len(done) == 5:
            raise OSError(28, "No space left on device", str(path))
        done.append(path)
        real(path, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(masks_module, "write_palette_png", failing)
        with pytest.raises(OSError, match="No space"):
            written(opened, things, tmp_path / "masks", PLAIN)
    rest = written(opened, things, tmp_path / "masks", PLAIN)
    assert whole["made"] == 24 and rest["made"] == 19 and rest["samples"] == 24
    expected, found = read(tmp_path / "whole"), read(tmp_path / "masks")
    assert all(np.array_equal(expected[name], found[name]) for name in expected)
    again = written(opened, things, tmp_path / "masks", PLAIN)
    assert (again["made"], again["object_share"]) == (0, None)
    for other in (opened, replace(opened, weights_hash="0" * 16)):
        how = PLAIN if other is not opened else PLAIN.model_copy(update={"threshold": 0.4})
        with pytest.raises(ConfigError, match=r"holds masks of another (settings|checkpoint) already"):
            written(other, things, tmp_path / "masks", how)
    assert json.loads((tmp_path / "masks" / "objects.json").read_text())["settings"]["threshold"] == 0.55


def test_a_higher_threshold_leaves_less(opened: OpenedMapper, things: Path, tmp_path: Path) -> None:
    shares = [
        written(opened, things, tmp_path / str(t), PLAIN.model_copy(update={"threshold": t}))["object_share"]
        for t in (0.3, 0.8)
    ]
    assert shares[0] > shares[1] + 0.02


def test_build_takes_the_masks_and_training_reads_them(opened: OpenedMapper, things: Path, tmp_path: Path) -> None:
    written(opened, things, tmp_path / "masks", PLAIN)
    names = (tmp_path / "masks" / "classes.txt").read_text().split()
    samples = read_source(things / "images")
    masks = find_masks(samples, MaskRule(tuple(names)), root=tmp_path / "masks")
    build(samples, tmp_path / "pairs.beton", BuildOptions.model_validate({"workers": 1}), masks)
    found = read(tmp_path / "masks")
    with Loader(tmp_path / "pairs.beton", 6, view=segmentation_view(64), masks=True, threads=1) as loader:
        assert loader.dataset.masks is not None and loader.dataset.masks.classes == ("background", "object")
        rows = loader.rows[:3]
        for name, mask in zip(loader.string_ids(rows), loader.masks_of(rows), strict=True):
            np.testing.assert_array_equal(mask, found[name])
        batch = next(iter(loader))
        assert isinstance(batch, MaskedBatch) and set(batch.masks.unique().tolist()) <= {0, 1, 255}
        assert set(batch.labels.tolist()) <= {0, 1}


def test_a_large_photo_is_refined_at_a_smaller_size() -> None:
    rows, columns = np.mgrid[:200, :300]
    disc = (rows - 100) ** 2 + (columns - 150) ** 2 < 60**2
    pixels = np.where(disc[..., None], (180, 60, 40), (90, 110, 120)).astype(np.uint8)
    square = (abs(rows - 100) < 50) & (abs(columns - 150) < 50)
    for longest in (0, 150):
        found = refined(square, pixels, CrfSettings(longest=longest))
        assert found.shape == disc.shape and (found & disc).sum() / (found | disc).sum() > 0.94
    assert (square & disc).sum() / (square | disc).sum() < 0.9
