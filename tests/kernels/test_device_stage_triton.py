"""The Triton kernels against the plain reference: on a GPU, else in Triton's interpreter, in a process of its own."""

import pytest
import torch

from fasttrain.kernels import device_stage

from . import device_stage_cases as cases
from .interpreted import DEVICE, on_device, outside, run_in_interpreter

pytest.importorskip("triton", reason="Triton comes with torch for CUDA on Linux only")


@outside
def test_all_of_this_in_the_interpreter() -> None:
    run_in_interpreter(__file__)


@on_device
@pytest.mark.parametrize("dtype", cases.DTYPES)
@pytest.mark.parametrize("shape", cases.SHAPES)
def test_finish(shape: tuple[int, int], dtype: torch.dtype) -> None:
    pixels, target = cases.batch(6, *shape), cases.target(dtype)
    # Types differ in the last step alone, so that one kind of jitter is enough for the others.
    kinds = (None, cases.jitter(6), cases.jitter(6, contrast=False))
    for jitter in kinds if dtype == torch.float32 else kinds[1:2]:
        reference = device_stage.finish(pixels, target, jitter, using="plain")
        ours = device_stage.finish(pixels.to(DEVICE), target, jitter, using="triton")
        assert ours.is_contiguous(memory_format=torch.channels_last)
        cases.assert_same(ours, reference)


@on_device
def test_the_mean_of_large_images_is_summed_in_parts() -> None:
    pixels, target, jitter = cases.batch(2, 97, 173), cases.target(torch.float32), cases.jitter(2, seed=2)
    reference = device_stage.finish(pixels, target, jitter, using="plain")
    ours = device_stage.finish(pixels.to(DEVICE), target, jitter, using="triton")
    cases.assert_same(ours, reference)
    assert torch.equal(ours, device_stage.finish(pixels.to(DEVICE), target, jitter, using="triton"))


@on_device
@pytest.mark.parametrize("padding", ["black", "reflect"])
@pytest.mark.parametrize("shape", [(1, 1), (9, 11), (33, 47)])
def test_gather(shape: tuple[int, int], padding: str) -> None:
    images, crops = cases.batch(6, *shape), cases.crops(8, 6, *shape, padding)
    for dtype, jitter in ((torch.float32, cases.jitter(8)), (torch.bfloat16, None)):
        target = cases.target(dtype)
        reference = device_stage.gather(images, crops, target, jitter, using="plain")
        cases.assert_same(device_stage.gather(images.to(DEVICE), crops, target, jitter, using="triton"), reference)


VIEWS = [
    ((41, 30), (5, 3, 30, 25), (12, 11), (1, 0)),
    ((7, 5), (2, 1, 1, 3), (14, 10), (4, 0)),
    ((90, 3), (0, 0, 90, 3), (15, 10), (2, 0)),
    ((17, 23), (1, 2, 16, 20), (34, 70), (24, 60)),
]


@on_device
@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("filter_", ["bilinear", "bicubic"])
def test_resample(filter_: str, planar: bool) -> None:
    images = cases.flat_images([view[0] for view in VIEWS], planar)
    geometry = cases.geometry([view[1:] for view in VIEWS], filter_)
    there = type(images)(images.buffer.to(DEVICE), images.offsets, images.sizes, planar)
    rounded = device_stage.resample(images, geometry, 10, using="plain").int()
    difference = (device_stage.resample(there, geometry, 10, using="triton").cpu().int() - rounded).abs()
    # Weights of single precision: a value that lies within 1e-4 of a half may be rounded to either side.
    assert difference.max() <= 1 and difference.float().mean() < 0.01
    target = cases.target(torch.float32)
    reference = device_stage.resample(images, geometry, 10, target, using="plain")
    cases.assert_same(device_stage.resample(there, geometry, 10, target, using="triton"), reference)


@on_device
def test_resample_of_more_than_a_tile_and_jitter() -> None:
    images = cases.flat_images([(41, 19), (38, 44)])
    geometry = cases.geometry([((0, 0, 41, 19), (35, 35), (0, 0)), ((1, 3, 36, 40), (35, 40), (0, 5))], "bilinear")
    there = type(images)(images.buffer.to(DEVICE), images.offsets, images.sizes)
    target = cases.target(torch.bfloat16)
    reference = device_stage.resample(images, geometry, 35, target, using="plain")
    cases.assert_same(device_stage.resample(there, geometry, 35, target, using="triton"), reference)
    jitter = cases.jitter(2)
    pixels = device_stage.resample(there, geometry, 35, using="triton")
    jittered = device_stage.resample(there, geometry, 35, target, jitter, using="triton")
    assert torch.equal(jittered, device_stage.finish(pixels, target, jitter, using="triton"))


@on_device
def test_resample_divides_in_64_bits_where_it_must() -> None:
    """A strip whose side times its resized one is above 2^31."""
    width, resized = 40_001, 160_004
    images = cases.flat_images([(width, 2)])
    geometry = cases.geometry([((0, 0, width, 2), (resized, 8), (resized - 8, 0))], "bilinear")
    there = type(images)(images.buffer.to(DEVICE), images.offsets, images.sizes)
    target = cases.target(torch.float32)
    reference = device_stage.resample(images, geometry, 8, target, using="plain")
    cases.assert_same(device_stage.resample(there, geometry, 8, target, using="triton"), reference)


@pytest.mark.skipif(DEVICE == "cpu", reason="no GPU here")
def test_a_buffer_above_2_gib() -> None:
    """Offsets of 64 bits, in the buffer and in a resident data set."""
    far = 2**31 + 11
    small = cases.flat_images([(41, 30)])
    buffer = torch.zeros(far + len(small.buffer), dtype=torch.uint8, device=DEVICE)
    buffer[far:] = small.buffer.to(DEVICE)
    geometry = cases.geometry([((5, 3, 30, 25), (12, 11), (1, 0))], "bilinear")
    there = type(small)(buffer, small.offsets + far, small.sizes)
    reference = device_stage.resample(small, geometry, 10, cases.target(torch.float32), using="plain")
    cases.assert_same(device_stage.resample(there, geometry, 10, cases.target(torch.float32)), reference)
    count = 2**31 // (32 * 32 * 3) + 100
    images = torch.zeros((count, 32, 32, 3), dtype=torch.uint8, device=DEVICE)
    images[-6:] = cases.batch(6, 32, 32).to(DEVICE)
    crops = cases.crops(8, 6, 32, 32)
    crops.rows[:] += count - 6
    near = cases.crops(8, 6, 32, 32)
    reference = device_stage.gather(cases.batch(6, 32, 32), near, cases.target(torch.float32), using="plain")
    cases.assert_same(device_stage.gather(images, crops, cases.target(torch.float32)), reference)


@pytest.mark.skipif(DEVICE == "cpu", reason="no GPU here")
def test_a_gpu_chooses_triton() -> None:
    assert device_stage.choose(torch.device(DEVICE)) == "triton"
