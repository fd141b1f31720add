"""Samples with a random-access index in the pool: where an index may lie, and what it may do."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from fasttrain.kernels import loading
from fasttrain.kernels.indexed import index_jpeg
from fasttrain.kernels.loading import (
    DONE,
    FAILED,
    JPEG,
    NOT_HANDLED,
    BatchPool,
    Geometry,
    PixelFormat,
    Sources,
    gather,
    stored_elsewhere,
)
from fasttrain.tools.mutants import mutant

from .test_indexed import encode, picture

pytestmark = pytest.mark.skipif(not loading.loading_available(), reason="the native kernels were not built")


def one_sample(stream: bytes, index: np.ndarray, place: list[int]) -> tuple[Sources, Geometry]:
    size = np.array([Image.open(BytesIO(stream)).size])
    zero, flag = np.zeros(1, np.int64), np.zeros(1, bool)
    sources = Sources(
        np.full(1, JPEG, np.uint8), [stream, index.view(np.uint8)], zero, zero, np.full(1, len(stream)), [None], size,
        np.array([place]),
    )  # fmt: skip
    box = np.concatenate([np.zeros((1, 2), np.int64), size], 1)
    return sources, Geometry(box, np.full((1, 2), 8), np.zeros((1, 2), np.int64), flag, flag, "bilinear")


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ([1, -8, 16], "outside of its buffer"),
        ([1, 0, -8], "outside of its buffer"),
        ([1, 8, 2**40], "outside of its buffer"),
        ([1, 2**62, 8], "outside of its buffer"),
        ([2, 0, 8], "outside of its buffer"),
        ([-1, 0, 8], "outside of its buffer"),
        ([1, 4, 16], "aligned entries of 8 bytes"),
        ([1, 0, 12], "aligned entries of 8 bytes"),
    ],
)
def test_places_that_cannot_be_are_refused(place: list[int], words: str) -> None:
    stream = encode(picture(100, 60), "4:2:0")
    index = index_jpeg(stream)
    assert index is not None
    pool, out = BatchPool(1), np.zeros((1, 8, 8, 3), np.uint8)
    with pytest.raises(ValueError, match=words):
        pool.submit(*one_sample(stream, index, place), out, PixelFormat())
    good = pool.submit(*one_sample(stream, index, [1, 0, index.nbytes]), out, PixelFormat())
    assert good.wait() and good.outcomes()[0].tolist() == [DONE]
    sources, geometry = one_sample(stream, index, [1, 0, index.nbytes])
    with pytest.raises(ValueError, match="index has another shape"):
        pool.submit(Sources(**{**sources.__dict__, "index": np.ones((2, 3), np.int64)}), geometry, out, PixelFormat())
    sources.sizes[:] = 99, 60
    geometry.boxes[:] = 0, 0, 99, 60
    other = pool.submit(sources, geometry, out, PixelFormat())
    assert other.wait() and other.outcomes()[0].tolist() == [NOT_HANDLED]  # `decode` says what is wrong
    pool.close()


def test_gathered_sources_find_their_index() -> None:
    nothing, one, two = stored_elsewhere(2), stored_elsewhere(1), stored_elsewhere(2)
    assert gather(2, [(np.arange(2), nothing)]).index is None
    with_index = [
        Sources(**{**one.__dict__, "buffers": [b"a", b"b"], "index": np.array([[1, 8, 16]])}),
        Sources(**{**two.__dict__, "buffers": [b"c"], "index": np.array([[0, 24, 8], [0, 0, 0]])}),
    ]
    positions = [np.array([3]), np.array([0, 2])]
    found = gather(5, [(np.array([1, 4]), nothing), *zip(positions, with_index, strict=True)])
    assert found.index is not None
    assert found.index.tolist() == [[2, 24, 8], [0, 0, 0], [2, 0, 0], [1, 8, 16], [0, 0, 0]]


def test_mutated_jpegs_with_an_index_give_pixels_or_an_error() -> None:
    """An index of the sound stream, and the stream that came of it; or an index that is none at all."""
    generator = np.random.default_rng(2)
    mutants = [mutant(seed, "jpeg") for seed in range(300)]
    indices = []
    for one in mutants:
        try:
            index = index_jpeg(one.data)
        except ValueError:
            index = None
        length = int(generator.integers(1, 200))
        indices.append(index if index is not None else generator.integers(0, 2**40, length, np.uint64))
    streams = [one.data for one in mutants]
    count, starts = len(streams), np.cumsum([0, *map(len, streams)])
    ends = np.cumsum([0, *(8 * len(index) for index in indices)])
    sizes = np.array([(one.width, one.height) for one in mutants])
    sources = Sources(
        np.full(count, JPEG, np.uint8), [b"".join(streams), np.concatenate(indices).view(np.uint8)],
        np.zeros(count, np.int64), starts[:-1], np.diff(starts), [None] * count, sizes,
        np.stack([np.ones(count, np.int64), ends[:-1], np.diff(ends)], 1),
    )  # fmt: skip
    boxes = np.concatenate([np.zeros((count, 2), np.int64), np.minimum(sizes, 40)], 1)
    flips = np.arange(count) % 2 == 0
    geometry = Geometry(boxes, np.full((count, 2), 20), np.zeros((count, 2)), flips, flips, "bicubic")
    pool = BatchPool(2)
    filling = pool.submit(sources, geometry, np.zeros((count, 20, 20, 3), np.uint8), PixelFormat())
    assert filling.wait(120)
    outcomes, reasons = filling.outcomes()
    assert set(np.unique(outcomes)) <= {DONE, NOT_HANDLED, FAILED} and {DONE, FAILED} <= set(outcomes.tolist())
    assert sorted(reasons) == np.flatnonzero(outcomes == FAILED).tolist() and all(reasons.values())
    pool.close()
