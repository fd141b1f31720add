"""Views made straight from the planes of indexed JPEGs, against Pillow's crop and resize."""

from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fasttrain.kernels import loading
from fasttrain.kernels.indexed import IndexedReader
from fasttrain.kernels.loading import Geometry, PixelFormat

from .indexed_cases import FACTORS, encode, geometry, indexed, picture, random_geometry

pytestmark = pytest.mark.skipif(not loading.loading_available(), reason="the native kernels were not built")


def pillow_view(stream: bytes, wanted: Geometry, size: int, number: int = 0) -> np.ndarray:
    left, top, width, height = wanted.boxes[number].tolist()
    image = Image.open(BytesIO(stream)).convert("RGB").crop((left, top, left + width, top + height))
    filter_ = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}[wanted.filter]
    x, y = wanted.windows[number].tolist()
    pixels = np.asarray(image.resize(tuple(wanted.resized[number].tolist()), filter_))[y : y + size, x : x + size]
    pixels = pixels[:, ::-1] if wanted.hflip[number] else pixels
    return pixels[::-1] if wanted.vflip[number] else pixels


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    error = np.mean((one.astype(np.float64) - other.astype(np.float64)) ** 2)
    return 99.0 if error == 0 else float(10 * np.log10(255**2 / error))


@pytest.mark.parametrize("sampling", FACTORS)
def test_views_are_near_pillows(reader: IndexedReader, simd: str, sampling: str) -> None:
    generator, found = np.random.default_rng(7), []
    for turn in range(12):
        width, height = (int(n) for n in generator.integers(150, 400, 2))
        stream = encode(picture(width, height, turn), sampling)
        width, height = Image.open(BytesIO(stream)).size
        size = (64, 96)[turn % 2]
        wanted = random_geometry(generator, width, height, size)
        view = reader.views(stream, indexed(stream), wanted, size, PixelFormat("uint8"))[0]
        found.append(psnr(view, pillow_view(stream, wanted, size)))
    assert np.mean(found) >= 54 and min(found) >= 52, found


@pytest.mark.parametrize("sampling", ["4:2:2", "4:2:0"])
@pytest.mark.parametrize("filter_", ["bilinear", "bicubic"])
def test_saturated_edges_are_pillows(reader: IndexedReader, simd: str, sampling: str, filter_: str) -> None:
    colours = np.random.default_rng(3).integers(0, 2, (20, 25, 3)) * 120 + 60  # inside of what clipping would change
    stream = encode(np.kron(colours, np.ones((6, 6, 1))).astype(np.uint8), sampling, quality=95)
    for size in (50, 90, 110):
        wanted = geometry([(21, 5, 110, 110)], [(size, size)], filter_=filter_)
        view = reader.views(stream, indexed(stream), wanted, size, PixelFormat("uint8"))[0]
        assert psnr(view, pillow_view(stream, wanted, size)) >= 48


def test_a_view_of_the_same_size_is_the_image(reader: IndexedReader, simd: str) -> None:
    stream = encode(picture(150, 120), "4:4:4")
    for filter_ in ("bilinear", "bicubic"):
        wanted = geometry([(17, 9, 101, 101)], [(101, 101)], filter_=filter_)
        view = reader.views(stream, indexed(stream), wanted, 101, PixelFormat("uint8"))[0]
        assert np.abs(view.astype(int) - pillow_view(stream, wanted, 101)).max() <= 1


def test_streams_coded_as_rgb(reader: IndexedReader) -> None:
    stream = encode(picture(150, 120), keep_rgb=True)
    wanted = geometry([(17, 9, 101, 101)], [(50, 50)], flips=[(True, True)])
    view = reader.views(stream, indexed(stream), wanted, 50, PixelFormat("uint8"))[0]
    assert np.abs(view.astype(int) - pillow_view(stream, wanted, 50)).max() <= 1


@pytest.mark.parametrize("sampling", ["4:4:4", "4:2:0", "grey"])
def test_several_views_are_each_what_it_is_alone(reader: IndexedReader, simd: str, sampling: str) -> None:
    stream = encode(picture(390, 310), sampling)
    boxes = [(0, 0, 390, 310), (31, 200, 90, 100), (300, 5, 77, 290), (10, 10, 5, 3)]
    flips = [(False, False), (True, False), (False, True), (True, True)]
    together = geometry(boxes, [(40, 40), (33, 50), (60, 33), (33, 33)], [(3, 7), (0, 17), (20, 0), (0, 0)], flips)
    views = reader.views(stream, indexed(stream), together, 33, PixelFormat("uint8"))
    for i in range(4):
        part = slice(i, i + 1)
        alone = Geometry(
            together.boxes[part], together.resized[part], together.windows[part],
            together.hflip[part], together.vflip[part], "bilinear",
        )  # fmt: skip
        np.testing.assert_array_equal(
            views[i], reader.views(stream, indexed(stream), alone, 33, PixelFormat("uint8"))[0]
        )


@pytest.mark.parametrize("sampling", ["4:4:4", "4:2:2", "4:2:0", "grey"])
@pytest.mark.parametrize("share", [2, 3, 4, 9])
def test_fast_views_of_large_boxes_are_near_pillows(
    reader: IndexedReader, simd: str, sampling: str, share: int
) -> None:
    stream = encode(picture(500, 380), sampling)
    size = 340 // share
    wanted = geometry([(17, 21, 460, 345)], [(460 // share, size + 1)], [(5, 1)], [(True, False)])
    view = reader.views(stream, indexed(stream), wanted, size, PixelFormat("uint8"), fast=True)[0]
    exact = reader.views(stream, indexed(stream), wanted, size, PixelFormat("uint8"))[0]
    assert (view != exact).any()
    assert psnr(view, pillow_view(stream, wanted, size)) >= 35


def test_fast_views_of_small_boxes_are_the_exact_ones(reader: IndexedReader) -> None:
    stream = encode(picture(300, 200), "4:2:0")
    wanted = geometry([(17, 21, 198, 127)], [(100, 64)])
    exact = reader.views(stream, indexed(stream), wanted, 64, PixelFormat("uint8"))
    np.testing.assert_array_equal(reader.views(stream, indexed(stream), wanted, 64, PixelFormat("uint8"), True), exact)


def test_fast_views_share_the_size_that_the_finest_needs(reader: IndexedReader) -> None:
    stream = encode(picture(500, 380), "4:2:0")
    index, boxes = indexed(stream), [(0, 0, 500, 380), (30, 40, 70, 60)]
    together = reader.views(stream, index, geometry(boxes, [(50, 50)] * 2), 50, PixelFormat("uint8"), fast=True)
    exact = reader.views(stream, index, geometry(boxes, [(50, 50)] * 2), 50, PixelFormat("uint8"))
    np.testing.assert_array_equal(together, exact)
    alone = reader.views(stream, index, geometry(boxes[:1], [(50, 50)]), 50, PixelFormat("uint8"), fast=True)
    assert (alone[0] != exact[0]).any()


def test_sizes_that_do_not_exist(reader: IndexedReader) -> None:
    stream = encode(picture(64, 48))
    with pytest.raises(ValueError, match="eighths"):
        reader.planes(stream, indexed(stream), (0, 0, 1, 1), 3)


SCALE, SHIFT = (1 / 58.4, 1 / 57.1, 1 / 57.4), (-2.12, -2.04, -1.8)


@pytest.mark.parametrize("size", [1, 5, 33])
@pytest.mark.parametrize("sampling", ["4:2:0", "grey"])
def test_pixels_are_normalised_and_stored_in_every_format(
    reader: IndexedReader, simd: str, sampling: str, size: int
) -> None:
    stream = encode(picture(64, 48), sampling)
    index, wanted = indexed(stream), geometry([(5, 3, 41, 37)], [(33, 34)], flips=[(True, False)])

    def view(*format_: Any) -> np.ndarray:
        return reader.views(stream, index, wanted, size, PixelFormat(*format_))

    plain = view("float32")
    assert plain.min() >= 0 and plain.max() <= 255
    normal = view("float32", SCALE, SHIFT)
    np.testing.assert_allclose(normal, plain * np.float32(SCALE) + np.float32(SHIFT), atol=1e-5)
    np.testing.assert_array_equal(view("float16", SCALE, SHIFT), normal.astype(np.float16))
    brain = (view("bfloat16", SCALE, SHIFT).astype(np.uint32) << 16).view(np.float32)
    np.testing.assert_allclose(brain, normal, rtol=2**-8)
    np.testing.assert_array_equal(view("uint8"), np.floor(plain + 0.5))


def test_views_that_the_image_does_not_have(reader: IndexedReader) -> None:
    stream = encode(picture(64, 48))
    for box in ((-1, 0, 5, 5), (0, 0, 65, 5), (60, 0, 5, 5), (0, 0, 0, 5), (0, 0, 2**40, 5)):
        with pytest.raises(ValueError, match="does not have"):
            reader.views(stream, indexed(stream), geometry([box], [(8, 8)]), 8, PixelFormat("uint8"))
    for units in ((0, 0, 9, 1), (0, 0, 8, 7), (-1, 0, 8, 6), (3, 0, 3, 6)):
        with pytest.raises(ValueError, match="does not have"):
            reader.planes(stream, indexed(stream), units)
