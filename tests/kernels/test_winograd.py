"""Winograd's convolutions against torch's direct ones in float64."""

import numpy as np
import pytest
import torch

from fasttrain.kernels import winograd

# Images, channels in and out, sides: all rests of tiles, channels that fill no vector, and one image or pixel.
SHAPES = [
    *[(2, 3, 5, side, side) for side in range(1, 10)],
    (3, 8, 16, 4, 4),
    (1, 24, 40, 31, 2),
    (5, 33, 17, 14, 15),
    (40, 64, 48, 7, 6),
    (2, 70, 1, 5, 11),
]


@pytest.fixture(autouse=True)
def native():
    if not winograd.native_there():
        pytest.skip("the native kernels were not built")


def arrays(images, inputs, outputs, height, width):
    generator = np.random.default_rng(images + inputs + outputs + height + width)

    def normal(*shape):
        return generator.normal(size=shape).astype(np.float32)

    return (
        normal(images, height, width, inputs),
        normal(outputs, inputs, 3, 3),
        normal(images, height, width, outputs),
    )


def direct(images, weights, gradients):
    """Outputs, and gradients by images and by weights."""
    images_, weights_, gradients_ = (torch.from_numpy(one).double() for one in (images, weights, gradients))
    images_ = images_.permute(0, 3, 1, 2).requires_grad_()
    weights_.requires_grad_()
    out = torch.nn.functional.conv2d(images_, weights_, padding=1)
    out.backward(gradients_.permute(0, 3, 1, 2))
    return (
        out.detach().permute(0, 2, 3, 1).numpy(),
        images_.grad.permute(0, 2, 3, 1).numpy(),
        weights_.grad.numpy(),
    )


def all_passes(images, weights, gradients, **options):
    return (
        winograd.convolve(images, weights, **options),
        winograd.input_gradient(gradients, weights, **options),
        winograd.weight_gradient(images, gradients, **options),
    )


def assert_close(found, expected):
    for one, other in zip(found, expected, strict=True):
        assert np.abs(one - other).max() <= 1e-4 * max(np.sqrt(np.square(other).mean()), 1)


@pytest.mark.parametrize("shape", SHAPES)
def test_all_passes_give_what_the_direct_way_gives(shape, simd):
    given = arrays(*shape)
    assert_close(all_passes(*given), direct(*given))


@pytest.mark.parametrize("shape", SHAPES[:10])
def test_the_plain_version_gives_the_same(shape):
    given = arrays(*shape)
    assert_close(all_passes(*given, backend="plain"), direct(*given))


def test_the_plain_version_is_exact_in_float64():
    given = [one.astype(np.float64) for one in arrays(2, 3, 4, 11, 6)]
    plain = winograd.winograd_plain
    assert np.allclose(plain.convolve(*given[:2]), direct(*given)[0], rtol=0, atol=1e-12)
    assert np.allclose(plain.weight_gradient(given[0], given[2]), direct(*given)[2], rtol=0, atol=1e-11)


def test_results_are_the_same_bits_with_any_number_of_threads(simd):
    given = arrays(37, 24, 40, 15, 14)
    one = all_passes(*given, threads=1)
    for threads in (2, 3):
        assert all(map(np.array_equal, one, all_passes(*given, threads=threads)))


def test_weights_may_lie_in_any_order():
    images, weights, gradients = arrays(3, 9, 20, 7, 5)
    by_pixel = np.ascontiguousarray(weights.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    assert np.array_equal(winograd.convolve(images, weights), winograd.convolve(images, by_pixel))
    out = np.empty((20, 3, 3, 9), np.float32).transpose(0, 3, 1, 2)
    assert winograd.weight_gradient(images, gradients, out=out) is out
    assert np.array_equal(out, winograd.weight_gradient(images, gradients))


def test_what_does_not_fit_is_refused():
    images, weights, _ = arrays(2, 3, 4, 5, 6)
    for wrong in (images[..., :2], images[:, ::2], images[0], images[:0]):
        with pytest.raises(ValueError, match="images are contiguous"):
            winograd.convolve(wrong, weights)
    with pytest.raises(ValueError, match="images are contiguous"):
        winograd.convolve(images, weights[..., :2])
    with pytest.raises(ValueError, match="images are contiguous"):
        winograd.convolve(images, weights, out=np.empty((2, 5, 6, 3), np.float32))
    with pytest.raises(TypeError):
        winograd.convolve(images.astype(np.float64), weights)
