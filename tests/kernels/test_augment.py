"""Each operation against Pillow on the same parameters, and the implementations against each other."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageFilter, ImageOps
from torchvision.transforms import functional as F

from fasttrain.kernels import loading
from fasttrain.kernels.augment import augment, choose
from fasttrain.kernels.augment_program import Op, Style, joined, program_of
from fasttrain.kernels.pixels import Target

from .augment_cases import IMPLEMENTATIONS, SHAPES, done, levels, picture, random_program

using = pytest.mark.parametrize("using", IMPLEMENTATIONS)
Pillow = Callable[[Image.Image, list[float]], Image.Image]


def _point(image: Image.Image, table: Callable[[int], int]) -> Image.Image:
    return image.point([table(value) for value in range(256)] * 3)


# Operation, arguments, the same by Pillow.
EXACT: list[tuple[Op, list[float], Pillow]] = [
    *[(Op.BRIGHTNESS, [f], lambda i, a: ImageEnhance.Brightness(i).enhance(a[0])) for f in (0.1, 0.55, 1.0, 1.43, 1.9)],
    *[(Op.CONTRAST, [f], lambda i, a: ImageEnhance.Contrast(i).enhance(a[0])) for f in (0.1, 0.7, 1.9)],
    *[(Op.SATURATION, [f], lambda i, a: ImageEnhance.Color(i).enhance(a[0])) for f in (0.0, 0.1, 0.55, 1.9)],
    *[(Op.SHARPNESS, [f], lambda i, a: ImageEnhance.Sharpness(i).enhance(a[0])) for f in (0.1, 0.55, 1.9)],
    *[(Op.POSTERIZE, [bits], lambda i, a: ImageOps.posterize(i, int(a[0]))) for bits in (1, 4, 7, 8)],
    *[(Op.SOLARIZE, [level], lambda i, a: ImageOps.solarize(i, int(a[0]))) for level in (0, 26, 128, 256)],
    *[
        (Op.SOLARIZE_ADD, [add, 128], lambda i, a: _point(i, lambda v: min(255, v + int(a[0])) if v < a[1] else v))
        for add in (0, 44, 110)
    ],
    (Op.INVERT, [], lambda i, a: ImageOps.invert(i)),
    (Op.AUTOCONTRAST, [], lambda i, a: ImageOps.autocontrast(i)),
    (Op.EQUALIZE, [], lambda i, a: ImageOps.equalize(i)),
    *[(Op.GAMMA, [g], lambda i, a: F.adjust_gamma(i, a[0])) for g in (0.5, 1.7)],
    *[(Op.BLUR, [s], lambda i, a: i.filter(ImageFilter.GaussianBlur(a[0]))) for s in (0.1, 0.6, 1.3, 2.0, 4.7)],
]
NEUTRAL = [
    (Op.BRIGHTNESS, [1.0]),
    (Op.POSTERIZE, [8]),
    (Op.SOLARIZE, [256]),
    (Op.SOLARIZE_ADD, [0, 128]),
    (Op.BLUR, [0.1]),
]


@using
@pytest.mark.parametrize("case", EXACT, ids=lambda case: f"{case[0].name}{case[1]}")
def test_it_is_pillows_bit_for_bit(case: tuple[Op, list[float], Pillow], using: str) -> None:
    op, arguments, pillow = case
    for shape in ((53, 61), (3, 3), (1, 7), (20, 1)):
        image = picture(*shape)
        theirs = np.asarray(pillow(Image.fromarray(image), arguments))
        np.testing.assert_array_equal(done(image, (op, arguments), using=using), theirs)


@using
@pytest.mark.parametrize("case", EXACT, ids=lambda case: f"{case[0].name}{case[1]}")
def test_it_has_an_effect(case: tuple[Op, list[float], Pillow], using: str) -> None:
    op, arguments, _ = case
    image = picture()
    apart = np.abs(done(image, (op, arguments), using=using).astype(float) - image).mean()
    assert apart < 0.1 if (op, arguments) in NEUTRAL else apart > 0.3


AFFINE = [
    [1, 0.27, 0, 0, 1, 0],
    [1, 0, 0, -0.3, 1, 0],
    [1, 0, 27.45, 0, 1, 0],
    [1, 0, 0, 0, 1, -13.5],
    [0.9, 0.4359, -8.1, -0.4359, 0.9, 17.0],
    [1, 0, 0, 0, 1, 500],
]


@using
@pytest.mark.parametrize("matrix", AFFINE)
def test_affine_is_pillows_within_a_level(matrix: list[float], using: str) -> None:
    image = picture()
    size, fill = (61, 53), (124, 116, 104)
    for bilinear, name in ((True, Image.Resampling.BILINEAR), (False, Image.Resampling.NEAREST)):
        ours = done(image, (Op.AFFINE, matrix), using=using, style=Style(fill=fill, bilinear=bilinear))
        how = {"resample": name, "fillcolor": fill}
        theirs = np.asarray(Image.fromarray(image).transform(size, Image.Transform.AFFINE, matrix, **how))
        different = ours != theirs
        if bilinear:  # a level where the value is whole but for rounding errors
            assert levels(ours, theirs) <= 1
        assert different.mean() < (0.02 if bilinear else 0.003)
        assert (ours != image).any()


@using
def test_rotation_is_pillows(using: str) -> None:
    from fasttrain.loading.augment.levels import rotation

    image = picture(60, 60)
    for degrees in (-27.0, 13.7, 90.0):
        matrix = [float(values) for values in rotation(np.array(degrees), 60)]
        ours = done(image, (Op.AFFINE, matrix), using=using)
        theirs = Image.fromarray(image).rotate(degrees, Image.Resampling.BILINEAR, fillcolor=(128, 128, 128))
        apart = np.abs(ours.astype(int) - np.asarray(theirs)).max(-1)
        assert (apart > 1).mean() < 0.003  # pixels whose look ends on the very border


@using
def test_affine_operations_that_follow_each_other_are_one_resample(using: str) -> None:
    image = picture(60, 60)
    there, back = [1, 0, 20.0, 0, 1, 0], [1, 0, -20.0, 0, 1, 0]
    moved = done(image, (Op.AFFINE, there), (Op.AFFINE, back), using=using)
    assert (moved[:, :20] == 128).all()  # what left the frame is gone
    np.testing.assert_array_equal(moved[:, 20:], image[:, 20:])
    turned = [(Op.AFFINE, [0.98, 0.2, -5, -0.2, 0.98, 6.5]), (Op.AFFINE, [1, 0.25, -7, 0, 1, 0])]
    once, twice = done(image, *turned, using=using), done(done(image, turned[0], using=using), turned[1], using=using)
    shown = (once != 128).all(-1) & (twice != 128).all(-1)
    assert ((once == 128).all(-1) != (twice == 128).all(-1)).mean() < 0.06
    smooth = np.abs(once[shown].astype(int) - twice[shown]).mean()
    assert 0 < smooth < 12  # interpolated once instead of twice: sharper, in the same place
    exact = (0.98 * np.eye(2) + 0.2 * np.array([[0, 1], [-1, 0]])) @ np.array([[1, 0.25], [0, 1]])
    at = np.array([0.98 * -7 - 5, 0.2 * 7 + 6.5])
    matrix = [exact[0, 0], exact[0, 1], at[0], exact[1, 0], exact[1, 1], at[1]]
    inner = slice(20, 40)
    np.testing.assert_array_equal(once[inner, inner], done(image, (Op.AFFINE, matrix), using=using)[inner, inner])


@using
def test_tables_and_geometry_keep_their_order(using: str) -> None:
    image = picture()
    move = (Op.AFFINE, [1, 0, 9, 0, 1, 0])
    for op in ((Op.INVERT, []), (Op.EQUALIZE, []), (Op.CONTRAST, [0.3]), (Op.SOLARIZE, [100])):
        for order in ((move, op), (op, move)):
            steps = image
            for step in order:
                steps = done(steps, step, using=using)
            np.testing.assert_array_equal(done(image, *order, using=using), steps)


@using
def test_several_tables_are_as_if_done_one_by_one(using: str) -> None:
    steps = [
        (Op.POSTERIZE, [4]),
        (Op.EQUALIZE, []),
        (Op.AUTOCONTRAST, []),
        (Op.BRIGHTNESS, [0.8]),
        (Op.CONTRAST, [1.4]),
    ]
    image = alone = picture()
    for step in steps:
        alone = done(alone, step, using=using)
    np.testing.assert_array_equal(done(image, *steps, using=using), alone)


@using
def test_hue_is_that_of_the_device_stage(using: str) -> None:
    from fasttrain.kernels import device_stage_plain

    image = picture()
    for turns in (0.13, -0.4, 0.5):
        values = torch.from_numpy(image[None]).float() / 255
        theirs = (device_stage_plain._hue(values, torch.tensor(turns)) * 255).round()[0].numpy()
        ours = done(image, (Op.HUE, [turns]), using=using)
        assert levels(ours, theirs) <= 1 and (ours != image).mean() > 0.5


@using
def test_noise(using: str) -> None:
    grey = np.full((80, 80, 3), 128, np.uint8)
    noise = done(grey, (Op.NOISE, [12.0]), using=using).astype(float) - 128
    assert abs(noise.mean()) < 0.3 and abs(noise.std() - 12) < 0.4
    kurtosis = (noise**4).mean() / noise.var() ** 2
    assert 2.5 < kurtosis < 3.1
    flat = noise.reshape(-1, 3)
    assert np.abs(np.corrcoef(flat.T) - np.eye(3)).max() < 0.05
    assert abs(np.corrcoef(noise[:, 1:].ravel(), noise[:, :-1].ravel())[0, 1]) < 0.05
    assert not np.array_equal(done(grey, (Op.NOISE, [12.0]), using=using, seed=6).astype(float) - 128, noise)


@using
def test_erasing(using: str) -> None:
    image = picture()
    ours = done(image, (Op.ERASE, [10, 20, 15, 30, 0, 124, 116, 104]), using=using)
    expected = image.copy()
    expected[10:25, 20:50] = (124, 116, 104)
    np.testing.assert_array_equal(ours, expected)
    style = Style(noise_mean=(100, 120, 140), noise_deviation=(10, 20, 30))
    noisy = done(image, (Op.ERASE, [10, 20, 15, 30, 1]), using=using, style=style)
    box = noisy[10:25, 20:50].reshape(-1, 3).astype(float)
    np.testing.assert_allclose(box.mean(0), (100, 120, 140), atol=5)
    np.testing.assert_allclose(box.std(0), (10, 20, 30), atol=3)
    noisy[10:25, 20:50] = image[10:25, 20:50]
    np.testing.assert_array_equal(noisy, image)


@using
def test_grid_shuffle_moves_the_cells(using: str) -> None:
    image = picture(63, 64)
    ours = done(image, (Op.GRID_SHUFFLE, [3]), using=using)
    cells = [ours[y : y + 21, x : x + 21].tobytes() for y in (0, 21, 42) for x in (0, 21, 42)]
    were = [image[y : y + 21, x : x + 21].tobytes() for y in (0, 21, 42) for x in (0, 21, 42)]
    assert sorted(cells) == sorted(were) and cells != were
    np.testing.assert_array_equal(ours[:, 63:], image[:, 63:])


@using
def test_a_transposition_is_exact(using: str) -> None:
    image = picture(60, 60)
    np.testing.assert_array_equal(done(image, (Op.AFFINE, [0, 1, 0, 1, 0, 0]), using=using), image.transpose(1, 0, 2))


@using
def test_a_mixture_is_timms(using: str) -> None:
    image = picture()
    chains = [[(Op.INVERT, [])], [(Op.POSTERIZE, [2]), (Op.AFFINE, [1, 0, 9, 0, 1, 0])], [(Op.BRIGHTNESS, [1.7])]]
    weights, share = np.float32([0.2, 0.5, 0.3]), 0.65
    steps: list[tuple[Op, list[float]]] = [(Op.MIX_BEGIN, [])]
    mixed = np.zeros(image.shape, np.float32)
    for chain, weight in zip(chains, weights, strict=True):
        steps += [*chain, (Op.MIX_CHAIN, [float(weight)])]
        mixed += weight * done(image, *chain).astype(np.float32)
    picture_of = Image.fromarray(np.clip(mixed, 0, 255).astype(np.uint8))
    theirs = np.asarray(Image.blend(Image.fromarray(image), picture_of, share))
    ours = done(image, *steps, (Op.MIX_END, [share]), using=using)
    assert levels(ours, theirs) <= 1 and (ours != theirs).mean() < 0.01
    assert (ours != image).mean() > 0.5


@using
def test_masks_move_as_the_pixels_do(using: str) -> None:
    image = picture(60, 60)
    mask = (image[..., 0] > 127).astype(np.uint8)
    colours = np.repeat(mask[..., None] * np.uint8(255), 3, -1)
    steps = [[(Op.AFFINE, [0.9, 0.3, 2, -0.3, 0.9, 11]), (Op.GRID_SHUFFLE, [4]), (Op.AFFINE, [1, 0, 7, 0, 1, 0])]]
    program = program_of(steps, style=Style(fill=(7, 7, 7), mask_fill=255, bilinear=False))
    marks = torch.from_numpy(mask[None].copy())
    out = augment(torch.from_numpy(colours[None]), program, masks=marks, out_masks=marks, using=using)  # type: ignore[arg-type]
    moved, shown = marks[0].numpy(), out[0, ..., 0].numpy()
    np.testing.assert_array_equal(moved == 255, shown == 7)
    np.testing.assert_array_equal(moved[moved != 255] * 255, shown[moved != 255])
    assert (moved == 255).any() and (moved != mask).mean() > 0.1


@using
def test_masks_stay_where_colours_change_and_in_mixtures(using: str) -> None:
    mask = torch.randint(0, 5, (1, 30, 30), dtype=torch.uint8)
    shear = (Op.AFFINE, [1, 0.4, 0, 0, 1, 0])
    for steps in (
        [(Op.INVERT, []), (Op.BLUR, [1.0])],
        [(Op.MIX_BEGIN, []), shear, (Op.MIX_CHAIN, [1]), (Op.MIX_END, [0.5])],
    ):
        marks = torch.zeros_like(mask)
        pixels = torch.from_numpy(picture(30, 30)[None])
        augment(pixels, program_of([steps]), masks=mask, out_masks=marks, using=using)  # type: ignore[arg-type]
        assert torch.equal(marks, mask)


@pytest.mark.skipif("native" not in IMPLEMENTATIONS, reason="the native extension was not built")
@pytest.mark.parametrize("shape", SHAPES)
def test_native_is_plain(shape: tuple[int, int], simd: str) -> None:
    images = torch.from_numpy(np.stack([picture(*shape, seed) for seed in range(24)]))
    program = random_program(24, min(shape), seed=shape[0])
    ours, plain = (augment(images, program, using=name) for name in ("native", "plain"))  # type: ignore[arg-type]
    apart = (ours.int() - plain.int()).abs()
    # A level of an interpolated value may become many by what comes after it.
    assert (apart > 0).float().mean() < 0.01


@pytest.mark.skipif("native" not in IMPLEMENTATIONS, reason="the native extension was not built")
def test_bytes_do_not_depend_on_threads_or_instruction_sets() -> None:
    images = torch.from_numpy(np.stack([picture(45, 45, seed) for seed in range(16)]))
    program = joined([random_program(16, 45, 1), random_program(16, 45, 2)])
    results, before = [], loading.current_simd()
    for name in loading.usable_simd():
        loading.force_simd(name)
        results += [augment(images, program, threads=threads) for threads in (1, 3)]
    loading.force_simd(before)
    assert all(torch.equal(result, results[0]) for result in results)
    alone = torch.cat([augment(images[i : i + 1], program[i : i + 1]) for i in range(16)])
    assert torch.equal(alone, results[0])


@using
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_target_normalises_what_comes_out(dtype: torch.dtype, using: str) -> None:
    target = Target((1 / 58.4, 1 / 57.1, 1 / 57.4), (-2.1, -2.0, -1.8), dtype)
    images = torch.from_numpy(np.stack([picture(33, 20, seed) for seed in range(4)]))
    steps = [[(Op.EQUALIZE, [])], [(Op.BLUR, [1.0])], [], [(Op.AFFINE, [1, 0, 3, 0, 1, 0]), (Op.INVERT, [])]]
    program = program_of(steps)
    ours = augment(images, program, target, using=using)  # type: ignore[arg-type]
    assert ours.shape == (4, 3, 33, 20) and ours.is_contiguous(memory_format=torch.channels_last)
    values = augment(images, program, using=using).float()  # type: ignore[arg-type]
    expected = (values * torch.tensor(target.scale) + torch.tensor(target.shift)).to(dtype).permute(0, 3, 1, 2)
    torch.testing.assert_close(ours.float(), expected.float(), rtol=torch.finfo(dtype).eps, atol=2e-6)


@using
def test_what_cannot_be_done_is_refused(using: str) -> None:
    images = torch.zeros((2, 4, 4, 3), dtype=torch.uint8)
    program = program_of([[(Op.INVERT, [])]] * 2)
    broken = program_of([[(Op.BRIGHTNESS, [np.inf])]] * 2)
    for pixels, steps in (
        (images.float(), program),
        (images[:1], program),
        (images, broken),
        (images[..., :2], program),
    ):
        with pytest.raises(ValueError):
            augment(pixels, steps, using=using)  # type: ignore[arg-type]
    unknown = program_of([[(Op.INVERT, [])]] * 2)
    unknown.operations[:] = 99
    with pytest.raises(ValueError, match="no such operation"):
        augment(images, unknown, using=using)  # type: ignore[arg-type]


@pytest.mark.skipif("native" not in IMPLEMENTATIONS, reason="the native extension was not built")
def test_native_refuses_mixtures_without_an_end() -> None:
    for steps in (
        [(Op.MIX_BEGIN, [])],
        [(Op.MIX_CHAIN, [1])],
        [(Op.MIX_BEGIN, []), (Op.MIX_BEGIN, []), (Op.MIX_END, [1])],
    ):
        with pytest.raises(ValueError, match="mixture"):
            augment(torch.zeros((1, 4, 4, 3), dtype=torch.uint8), program_of([steps]), using="native")


@pytest.mark.skipif("native" not in IMPLEMENTATIONS, reason="the native extension was not built")
def test_a_cpu_chooses_the_native_kernels() -> None:
    assert choose(torch.device("cpu")) == "native"
