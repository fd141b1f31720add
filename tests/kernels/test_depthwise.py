"""Gradients of depthwise convolutions against torch's in float64."""

import numpy as np
import pytest
import torch

from fasttrain.kernels import depthwise
from fasttrain.kernels.depthwise import Gradients

# Images, channels, height, width, kernel, stride, padding: channels that fill no vector, outputs that see the padding
# alone or leave inputs out, and images smaller than the kernel.
SHAPES = [
    (2, 16, 9, 9, (3, 3), (1, 1), (1, 1)),
    (3, 40, 8, 7, (3, 3), (2, 2), (1, 1)),
    (3, 33, 9, 10, (5, 5), (1, 1), (2, 2)),
    (40, 24, 7, 8, (5, 5), (2, 2), (0, 0)),
    (2, 70, 11, 12, (7, 7), (1, 1), (3, 3)),
    (1, 3, 3, 2, (5, 5), (1, 1), (2, 2)),
    (2, 5, 1, 1, (3, 3), (1, 1), (1, 1)),
    (2, 9, 14, 6, (3, 5), (3, 1), (1, 0)),
    (2, 8, 6, 6, (2, 2), (4, 3), (1, 1)),
]


@pytest.fixture(autouse=True)
def native():
    if depthwise._native is None:
        pytest.skip("the native kernels were not built")


def arrays(images, channels, height, width, kernel, stride, padding):
    generator = np.random.default_rng(images + channels + height + width)
    sides = zip((height, width), kernel, stride, padding, strict=True)
    outputs = [(side + 2 * zeros - size) // step + 1 for side, size, step, zeros in sides]
    shapes = (images, height, width, channels), (images, *outputs, channels), (*kernel, channels)
    return [generator.normal(size=shape).astype(np.float32) for shape in shapes]


def expected(images, slopes, weights, stride, padding):
    images_, slopes_, weights_ = (torch.from_numpy(one).double() for one in (images, slopes, weights))
    images_ = images_.permute(0, 3, 1, 2).requires_grad_()
    filters = weights_.permute(2, 0, 1)[:, None].requires_grad_()
    out = torch.nn.functional.conv2d(images_, filters, None, stride, padding, groups=len(filters))
    out.backward(slopes_.permute(0, 3, 1, 2))
    return images_.grad.permute(0, 2, 3, 1).numpy(), filters.grad[:, 0].permute(1, 2, 0).numpy()


def assert_close(found, wanted):
    for one, other in zip(found, wanted, strict=True):
        assert np.abs(one - other).max() <= 1e-5 * max(np.abs(other).max(), 1)


@pytest.mark.parametrize("shape", SHAPES)
def test_gradients_are_torchs(shape, simd):
    given, (stride, padding) = arrays(*shape), shape[-2:]
    found = depthwise.gradients(*given, stride=stride, padding=padding)
    assert_close(found, expected(*given, stride, padding))


@pytest.mark.parametrize("shape", SHAPES)
def test_the_plain_version_gives_the_same(shape):
    given, (stride, padding) = arrays(*shape), shape[-2:]
    found = depthwise.gradients(*given, stride=stride, padding=padding, backend="plain")
    assert_close(found, expected(*given, stride, padding))


def test_results_are_the_same_bits_with_any_number_of_threads(simd):
    given = arrays(*SHAPES[3])
    one, *others = (depthwise.gradients(*given, stride=(2, 2), threads=threads) for threads in (1, 2, 3))
    assert all(np.array_equal(a, b) for other in others for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("backend", ["native", "plain"])
def test_only_what_is_asked_for_is_written(backend):
    images, slopes, weights = arrays(*SHAPES[0])
    both = depthwise.gradients(images, slopes, weights, padding=(1, 1), backend=backend)
    for number, alone in enumerate((Gradients(np.empty_like(images), None), Gradients(None, np.empty_like(weights)))):
        found = depthwise.gradients(images, slopes, weights, padding=(1, 1), out=alone, backend=backend)
        assert found is alone and np.array_equal(found[number], both[number])


def test_what_does_not_fit_is_refused():
    images, slopes, weights = arrays(*SHAPES[0])
    wrong = [
        ((images[..., :8], slopes, weights), {}),
        ((images[:, ::2], slopes, weights), {}),
        ((images[:1], slopes, weights), {}),
        ((images[0], slopes, weights), {}),
        ((images, slopes, weights[..., :8]), {}),
        ((images, slopes, weights), {"stride": (2, 2)}),
        ((images, slopes, weights), {"stride": (0, 1)}),
        ((images, slopes, weights), {"padding": (3, 3)}),
        ((images, slopes, weights), {"out": Gradients(np.empty_like(images[:, :8]), None)}),
        ((images, slopes, weights), {"out": Gradients(None, np.empty((5, 5, 16), np.float32))}),
    ]
    for given, options in wrong:
        with pytest.raises(ValueError, match="images are contiguous"):
            depthwise.gradients(*given, **{"padding": (1, 1), **options})
    with pytest.raises(TypeError):
        depthwise.gradients(images.astype(np.float64), slopes, weights, padding=(1, 1))
