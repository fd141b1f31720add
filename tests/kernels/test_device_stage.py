"""The device stage on a CPU: the plain reference against torchvision and Pillow, C++ against the reference."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import functional as F

from fasttrain.kernels import device_stage, loading
from fasttrain.kernels.device_stage_plain import apply_jitter
from fasttrain.kernels.pixels import Crops, FlatImages, Target

from . import device_stage_cases as cases

OPERATIONS = (F.adjust_brightness, F.adjust_contrast, F.adjust_saturation, F.adjust_hue)
needs_native = pytest.mark.skipif(not loading.loading_available(), reason="the native kernels were not built")


# --- the reference ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("strength", [-0.4, -0.1, 0.1, 0.5])
def test_each_operation_is_torchvisions(number: int, strength: float) -> None:
    images = cases.batch(6, 9, 11).float() / 255
    factor = strength if number == 3 else 1 + strength
    factors = np.tile(np.array([1, 1, 1, 0], np.float32), (6, 1))
    factors[:, number] = factor
    expected = OPERATIONS[number](images.permute(0, 3, 1, 2), factor)
    ours = apply_jitter(images.clone(), cases.Factors(factors, np.tile(np.arange(4), (6, 1))))
    torch.testing.assert_close(ours.permute(0, 3, 1, 2), expected, rtol=0, atol=2e-6)


def test_each_sample_has_its_own_factors_in_its_own_order() -> None:
    images, jitter = cases.batch(6, 9, 11), cases.jitter(6)
    ours = apply_jitter(images.float() / 255, jitter)
    for sample in range(6):
        image = images[sample].permute(2, 0, 1).float() / 255
        for number in jitter.order[sample].tolist():
            image = OPERATIONS[number](image, float(jitter.factors[sample, number]))
        torch.testing.assert_close(ours[sample].permute(2, 0, 1), image, rtol=0, atol=1e-5)


@pytest.mark.parametrize("padding", ["black", "reflect"])
def test_gather_is_numpys_pad_and_slice(padding: str) -> None:
    images = cases.batch(6, 9, 11)
    crops = cases.crops(8, 6, 9, 11, padding)
    plain = Target((1.0,) * 3, (0.0,) * 3, torch.float32)
    ours = device_stage.gather(images, crops, plain, using="plain").permute(0, 2, 3, 1).numpy()
    mode = {"black": "constant", "reflect": "reflect"}[padding]
    for sample, (left, top) in enumerate(crops.corners.tolist()):
        padded = np.pad(images[crops.rows[sample]].numpy(), ((8, 8), (10, 10), (0, 0)), mode=mode)  # type: ignore[call-overload]
        expected = padded[top + 8 : top + 8 + crops.height, left + 10 : left + 10 + crops.width]
        expected = expected[:, ::-1] if crops.hflip[sample] else expected
        expected = expected[::-1] if crops.vflip[sample] else expected
        np.testing.assert_array_equal(ours[sample], expected)


@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("filter_", ["bilinear", "bicubic"])
def test_resample_is_pillows(filter_: str, planar: bool) -> None:
    sizes = [(64, 48), (7, 5), (100, 3), (31, 29), (1, 1)]
    views = [
        ((5, 3, 41, 37), (32, 32), (9, 3)),
        ((2, 1, 1, 3), (20, 20), (0, 0)),
        ((0, 0, 100, 3), (50, 20), (17, 0)),
        ((3, 2, 20, 25), (224, 224), (100, 204)),
        ((0, 0, 1, 1), (20, 20), (0, 0)),
    ]
    images, geometry = cases.flat_images(sizes, planar), cases.geometry(views, filter_)
    ours = device_stage.resample(images, geometry, 20, using="plain").numpy()
    pillow = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}[filter_]
    for row, ((width, height), (box, resized, (x, y))) in enumerate(zip(sizes, views, strict=True)):
        data = images.buffer[images.offsets[row] :][: 3 * width * height].numpy()
        pixels = data.reshape(3, height, width).transpose(1, 2, 0) if planar else data.reshape(height, width, 3)
        left, top, box_w, box_h = box
        image = Image.fromarray(np.ascontiguousarray(pixels[top : top + box_h, left : left + box_w]))
        expected = np.asarray(image.resize(resized, pillow))[y : y + 20, x : x + 20]
        expected = expected[:, ::-1] if geometry.hflip[row] else expected
        expected = expected[::-1] if geometry.vflip[row] else expected
        # Pillow rounds (and, with bicubic, clips) between its two passes.
        assert np.abs(ours[row].astype(int) - expected).max() <= (1 if filter_ == "bilinear" else 2)


def test_a_target_normalises_what_was_resampled() -> None:
    images = cases.flat_images([(30, 20)])
    geometry = cases.geometry([((0, 0, 30, 20), (15, 12), (2, 1))], "bilinear")
    rounded = device_stage.resample(images, geometry, 10)
    target, jitter = cases.target(torch.float32), cases.jitter(1, seed=4)
    direct = device_stage.resample(images, geometry, 10, target)
    assert (direct - device_stage.finish(rounded, target)).abs().max() <= 0.5 / 57 + 1e-5  # half a level
    jittered = device_stage.resample(images, geometry, 10, target, jitter)
    torch.testing.assert_close(jittered, device_stage.finish(rounded, target, jitter), rtol=0, atol=0)


# --- C++ -------------------------------------------------------------------------------------------------------------


@needs_native
@pytest.mark.parametrize("dtype", cases.DTYPES)
@pytest.mark.parametrize("shape", cases.SHAPES)
def test_cpp_is_the_reference(simd: str, shape: tuple[int, int], dtype: torch.dtype) -> None:
    pixels, target = cases.batch(6, *shape), cases.target(dtype)
    for jitter in (None, cases.jitter(6), cases.jitter(6, contrast=False)):
        reference = device_stage.finish(pixels, target, jitter, using="plain")
        for threads in (1, 3, 16):
            ours = device_stage.finish(pixels, target, jitter, using="native", threads=threads)
            assert ours.is_contiguous(memory_format=torch.channels_last)
            cases.assert_same(ours, reference)


@needs_native
def test_cpp_fills_what_it_is_given() -> None:
    pixels, target = cases.batch(6, 9, 11), cases.target(torch.bfloat16)
    out = torch.empty(pixels.shape, dtype=torch.bfloat16)
    result = device_stage.finish(pixels, target, out=out, using="native")
    assert result.data_ptr() == out.data_ptr()
    cases.assert_same(result, device_stage.finish(pixels, target, using="plain"))


@needs_native
@pytest.mark.parametrize("padding", ["black", "reflect"])
def test_cpp_takes_crops(padding: str) -> None:
    images, target, jitter = cases.batch(6, 9, 11), cases.target(torch.float32), cases.jitter(8)
    crops = cases.crops(8, 6, 9, 11, padding)
    reference = device_stage.gather(images, crops, target, jitter, using="plain")
    cases.assert_same(device_stage.gather(images, crops, target, jitter, using="native"), reference)


@needs_native
def test_every_float16_and_bfloat16_is_torchs(simd: str) -> None:
    levels = torch.arange(256, dtype=torch.uint8).view(1, 256, 1, 1).expand(1, 256, 1, 3).contiguous()
    for scale in (1e-9, 3e-7, 0.0007, 1.0, 300.0):  # zeros, denormals, usual numbers, overflow
        for dtype in (torch.float16, torch.bfloat16):
            target = Target((scale,) * 3, (0.0,) * 3, dtype)
            ours = device_stage.finish(levels, target, using="native")
            assert torch.equal(ours, device_stage.finish(levels, target, using="plain"))


# --- what is refused, and who does the work --------------------------------------------------------------------------


def test_empty_batches_stay_empty() -> None:
    target = cases.target(torch.float32)
    assert device_stage.finish(cases.batch(0, 9, 11), target, cases.jitter(0)).shape == (0, 3, 9, 11)
    none = FlatImages(torch.zeros(0, dtype=torch.uint8), np.zeros(0, np.int64), np.zeros((0, 2), np.int64))
    geometry = cases.geometry([((0, 0, 1, 1), (4, 4), (0, 0))], "bilinear")
    empty = type(geometry)(
        *(getattr(geometry, name)[:0] for name in ("boxes", "resized", "windows", "hflip", "vflip")), "bilinear"
    )
    assert device_stage.resample(none, empty, 4, target).shape == (0, 3, 4, 4)


def test_what_does_not_fit_is_refused() -> None:
    pixels, target = cases.batch(6, 9, 11), cases.target(torch.float32)
    with pytest.raises(ValueError, match="contiguous"):
        device_stage.finish(pixels.permute(0, 3, 1, 2), target)
    with pytest.raises(ValueError, match="jitter of 5 samples"):
        device_stage.finish(pixels, target, cases.jitter(5))
    with pytest.raises(ValueError, match="out must be"):
        device_stage.finish(pixels, target, out=torch.empty(6, 9, 11, 3, dtype=torch.float16))
    with pytest.raises(ValueError, match="floating-point"):
        Target((1.0,) * 3, (0.0,) * 3, torch.uint8)


def test_rows_and_windows_are_checked() -> None:
    images, target = cases.batch(6, 9, 11), cases.target(torch.float32)
    flips = np.zeros(1, bool)

    def take(row: int, left: int, padding: str = "black") -> None:
        crops = Crops(np.array([row]), np.array([[left, 0]]), 9, 11, flips, flips, padding)  # type: ignore[arg-type]
        device_stage.gather(images, crops, target)

    for row in (-1, 6):
        with pytest.raises(ValueError, match="rows must be 0 to 5"):
            take(row, 0)
    take(0, -10, "reflect")
    take(0, 100)  # nothing but padding
    for left in (-11, 11):
        with pytest.raises(ValueError, match="whole image beyond"):
            take(0, left, "reflect")


@pytest.mark.parametrize(
    ("box", "resized", "window", "message"),
    [
        ((0, 0, 31, 20), (10, 10), (0, 0), "box lies outside"),
        ((-1, 0, 5, 5), (10, 10), (0, 0), "box lies outside"),
        ((0, 0, 0, 5), (10, 10), (0, 0), "box lies outside"),
        ((0, 0, 30, 20), (10, 10), (1, 0), "window lies outside"),
        ((0, 0, 30, 20), (9, 10), (0, 0), "window lies outside"),
    ],
)
def test_geometry_is_checked(
    box: tuple[int, ...], resized: tuple[int, int], window: tuple[int, int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        device_stage.resample(cases.flat_images([(30, 20)]), cases.geometry([(box, resized, window)], "bilinear"), 10)


def test_images_must_lie_in_their_buffer() -> None:
    images = cases.flat_images([(30, 20)])
    geometry = cases.geometry([((0, 0, 30, 20), (10, 10), (0, 0))], "bilinear")
    for offsets in (images.offsets + 1, images.offsets - 6):
        with pytest.raises(ValueError, match="outside of its buffer"):
            device_stage.resample(FlatImages(images.buffer, offsets, images.sizes), geometry, 10)


def test_one_place_chooses() -> None:
    assert device_stage.choose(torch.device("cpu")) == ("native" if loading.loading_available() else "plain")
    assert device_stage.choose(torch.device("meta")) == "plain"
    assert device_stage.choose(torch.device("cpu"), torch.float64) == "plain"
