"""Common corruptions: each does something, more of it with the severity, and what its formula says."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from fasttrain.kernels.augment import augment
from fasttrain.kernels.augment_effects import plasma, smooth
from fasttrain.kernels.augment_program import Op, program_of
from fasttrain.loading.augment.corruptions import CORRUPTIONS

from .augment_cases import IMPLEMENTATIONS, SHAPES, done, levels, picture

using = pytest.mark.parametrize("using", IMPLEMENTATIONS)
names = pytest.mark.parametrize("name", list(CORRUPTIONS))


@using
@names
def test_it_grows_with_the_severity(name: str, using: str) -> None:
    op, table = CORRUPTIONS[name]
    image = picture(64, 64)
    apart = [np.abs(done(image, (op, list(row)), using=using).astype(float) - image).mean() for row in table]
    assert min(apart) > 1
    assert apart[4] > apart[0] or name == "frost"  # which darkens what it covers


@pytest.mark.skipif("native" not in IMPLEMENTATIONS, reason="the native extension was not built")
@names
@pytest.mark.parametrize("shape", SHAPES)
def test_native_is_plain(name: str, shape: tuple[int, int]) -> None:
    op, table = CORRUPTIONS[name]
    for row in table:
        image = picture(*shape)
        ours, plain = (done(image, (op, list(row)), using=name) for name in ("native", "plain"))
        assert levels(ours, plain) <= (2 if name == "jpeg_compression" else 1)
        assert (ours != plain).sum() <= max(2, 0.03 * image.size)


@using
def test_contrast(using: str) -> None:
    image = picture()
    mean = image.mean((0, 1))
    np.testing.assert_allclose(done(image, (Op.FADE, [0.3]), using=using), (image - mean) * 0.3 + mean, atol=0.501)


@using
def test_brightness_and_saturation_are_those_of_hsv(using: str) -> None:
    from colorsys import hsv_to_rgb, rgb_to_hsv

    image = picture(12, 9)

    def by_hsv(change: object) -> np.ndarray:
        pixels = [hsv_to_rgb(*change(*rgb_to_hsv(*pixel))) for pixel in (image / 255).reshape(-1, 3)]  # type: ignore[operator]
        return np.array(pixels).reshape(image.shape) * 255

    lighter = by_hsv(lambda h, s, v: (h, s, min(v + 0.2, 1)))
    np.testing.assert_allclose(done(image, (Op.LIGHTEN, [0.2]), using=using), lighter, atol=0.51)
    for factor, addend in ((0.3, 0), (5, 0.1)):
        vivid = by_hsv(lambda h, s, v, f=factor, a=addend: (h, min(s * f + a, 1), v))
        np.testing.assert_allclose(done(image, (Op.SATURATE, [factor, addend]), using=using), vivid, atol=0.51)


@using
def test_pixelate_and_jpeg_are_pillows(using: str) -> None:
    for shape in ((64, 64), (41, 57)):
        image = picture(*shape)
        small = Image.fromarray(image).resize((int(shape[1] * 0.4), int(shape[0] * 0.4)), Image.Resampling.BOX)
        large = np.asarray(small.resize(shape[::-1], Image.Resampling.BOX))
        assert levels(done(image, (Op.PIXELATE, [0.4]), using=using), large) <= 1
        stream = io.BytesIO()
        Image.fromarray(image).save(stream, "JPEG", quality=15)
        again = np.asarray(Image.open(stream))
        assert levels(done(image, (Op.JPEG, [15]), using=using), again) <= 2


def test_smooth_is_nearly_a_gaussian_filter() -> None:
    plane = np.zeros((61, 61))
    plane[30, 30] = 1
    ours = smooth(plane, 4.0)
    y, x = np.mgrid[0:61, 0:61] - 30.0
    gaussian = np.exp(-(x**2 + y**2) / 32) / (32 * np.pi)
    assert abs(ours.sum() - 1) < 1e-9
    np.testing.assert_allclose(ours, gaussian, atol=0.12 * gaussian.max())
    np.testing.assert_allclose(smooth(np.full((9, 5), 3.0), 2.5), 3.0)


def test_plasma_is_a_cloud() -> None:
    cloud = plasma(64, 64, 2.0, 3, 0)
    assert cloud.min() == 0 and cloud.max() == 1
    neighbours = np.abs(np.diff(cloud, axis=1)).mean()
    strangers = np.abs(cloud - np.random.default_rng(0).permutation(cloud.ravel()).reshape(64, 64)).mean()
    assert neighbours < 0.35 * strangers  # near points are alike
    assert np.abs(np.diff(plasma(64, 64, 1.2, 3, 0), axis=1)).mean() > neighbours  # a slower decay is rougher
    assert not np.allclose(cloud, plasma(64, 64, 2.0, 4, 0))


@using
def test_fog_follows_its_formula(using: str) -> None:
    image = picture(40, 40)
    cloud = plasma(40, 40, 2.0, 5, 0)[..., None]
    most = image.max() / 255
    expected = np.clip((image / 255 + 1.5 * cloud) * most / (most + 1.5), 0, 1) * 255
    np.testing.assert_allclose(done(image, (Op.FOG, [1.5, 2.0]), using=using), expected, atol=0.51)


@using
def test_elastic_displacements_are_small_and_smooth(using: str) -> None:
    y, x = np.mgrid[0:96, 0:96]
    ramp = np.stack([2 * x, 2 * y, x * 0], -1).astype(np.uint8)
    moved = done(ramp, (Op.ELASTIC, [12.5]), using=using).astype(float)[8:88, 8:88] / 2
    away = moved[..., 0] - x[8:88, 8:88], moved[..., 1] - y[8:88, 8:88]
    for part in away:
        assert 0.1 < np.abs(part).mean() < 6
        assert np.abs(np.diff(part, axis=0)).mean() < 0.6 * np.abs(part).mean() + 0.6
    mask = (x > 40).astype(np.uint8)[None]
    marks = torch.zeros((1, 96, 96), dtype=torch.uint8)
    program = program_of([[(Op.ELASTIC, [12.5])]], [5])
    augment(torch.from_numpy(ramp[None]), program, masks=torch.from_numpy(mask), out_masks=marks, using=using)  # type: ignore[arg-type]
    agrees = marks[0].numpy()[8:88, 8:88] == (moved[..., 0] > 40.5)
    assert agrees.mean() > 0.97 and not np.array_equal(marks[0].numpy(), mask[0])


@using
def test_snow_and_frost_brighten_and_mud_darkens(using: str) -> None:
    grey = np.full((64, 64, 3), 90, np.uint8)
    for name, more in (("snow", True), ("frost", True), ("spatter", True)):
        op, table = CORRUPTIONS[name]
        change = done(grey, (op, list(table[0])), using=using).astype(float) - 90
        assert (change.mean() > 0) == more and change.std() > 0.5
    op, table = CORRUPTIONS["spatter"]
    mud = done(grey, (op, list(table[4])), using=using)
    spots = (mud != 90).any(-1)
    assert spots.any() and (mud[spots].astype(float).mean(0) < (90, 60, 50)).all()


@using
@names
def test_other_seeds_are_other_pictures_where_there_is_chance(name: str, using: str) -> None:
    op, table = CORRUPTIONS[name]
    image = picture(48, 48)
    first, second = (done(image, (op, list(table[1])), using=using, seed=seed) for seed in (1, 2))
    by_chance = name in ("elastic_transform", "spatter", "snow", "frost", "fog")
    assert np.array_equal(first, second) != by_chance
