"""The permutohedral lattice and the dense CRF on it, against sums over all pairs of pixels."""

import numpy as np
import pytest

from fasttrain.kernels import permutohedral
from fasttrain.kernels.dense_crf import dense_crf, label_energies

NEAR, ALIKE = (3.0, 3.0), (50.0, 5.0, 10.0)  # as C2AM takes them


@pytest.fixture(params=["native", "plain"])
def backend(request):
    if request.param == "native" and not permutohedral.native_there():
        pytest.skip("the native kernels were not built")
    return request.param


def filtered(features, values, backend):
    out = np.empty_like(values)
    permutohedral.open_lattice(features, backend=backend).filter(values=values, out=out)
    return out


def pairs(features):
    """exp(-|f_i - f_j|^2 / 2), (N, N) float64."""
    apart = features[:, None].astype(np.float64) - features[None]
    return np.exp(-(apart**2).sum(-1) / 2)


@pytest.mark.parametrize("dimensions", [1, 2, 5])
def test_the_lattice_comes_near_the_sum_over_all_pairs(dimensions, backend):
    generator = np.random.default_rng(dimensions)
    features = (3 * generator.random((500, dimensions))).astype(np.float32)
    values = generator.random((500, 2)).astype(np.float32)
    exact = pairs(features) @ values
    ratio = filtered(features, values, backend) / exact
    assert ratio.std() < 0.1 * ratio.mean()
    # Values that lie on one side alone: what a filter without effect, or of another width, would not give.
    values[features[:, 0] > 1.5] = 0
    exact, found = pairs(features) @ values, filtered(features, values, backend) / ratio.mean()
    assert np.corrcoef(exact[:, 0], found[:, 0])[0, 1] > 0.985


@pytest.mark.parametrize(("points", "dimensions", "channels"), [(1, 1, 1), (37, 3, 2), (200, 5, 1), (64, 8, 3)])
def test_native_and_plain_lattices_are_the_same(points, dimensions, channels):
    if not permutohedral.native_there():
        pytest.skip("the native kernels were not built")
    generator = np.random.default_rng(points)
    features = generator.normal(0, 8 / dimensions, (points, dimensions)).astype(np.float32)
    values = generator.normal(size=(points, channels)).astype(np.float32)
    native, plain = (permutohedral.open_lattice(features, backend=name) for name in ("native", "plain"))
    assert native.vertices == plain.vertices
    found, expected = filtered(features, values, "native"), filtered(features, values, "plain")
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def test_features_that_no_lattice_holds_are_refused(backend):
    for features, told in (
        (np.zeros((3, 9), np.float32), "at most 8 dimensions"),
        (np.zeros((3, 2)), "float32"),
        (np.full((3, 2), np.inf, np.float32), "finite"),
        (np.full((3, 2), 1e6, np.float32), "too far from 0"),
    ):
        with pytest.raises(ValueError, match=told):
            permutohedral.open_lattice(features, backend=backend)


def exact_crf(energies, pixels, iterations, near, alike):
    """Mean field with the sums of Krähenbühl & Koltun, pair by pair, in float64."""
    labels, height, width = energies.shape
    places = np.stack(np.mgrid[:height, :width], -1).reshape(-1, 2).astype(np.float64)
    colours = pixels.reshape(-1, 3).astype(np.float64)
    kernels = []
    for weight, features in (
        (near[1], places / near[0]),
        (alike[2], np.concatenate([places / alike[0], colours / alike[1]], 1)),
    ):
        k = pairs(features)
        scales = 1 / np.sqrt(k.sum(1))
        kernels.append(weight * scales[:, None] * k * scales)
    liking = -energies.reshape(labels, -1).T.astype(np.float64)
    shares = np.exp(liking)
    shares /= shares.sum(1, keepdims=True)
    for _ in range(iterations):
        shares = np.exp(liking + sum(k @ shares for k in kernels))
        shares /= shares.sum(1, keepdims=True)
    return shares.T.reshape(labels, height, width)


def photo(height=24, width=28, noise=3):
    """Two plains of colour with an edge along a slant, and which is which."""
    rows, columns = np.mgrid[:height, :width]
    right = columns > 0.4 * width + 0.2 * rows
    pixels = np.where(right[..., None], (150, 90, 60), (70, 110, 130)).astype(np.float64)
    pixels += np.random.default_rng(0).normal(0, noise, pixels.shape)
    return pixels.round().clip(0, 255).astype(np.uint8), right


@pytest.mark.parametrize("classes", [2, 3])
def test_mean_field_is_near_that_over_all_pairs(classes, backend):
    pixels, right = photo()
    generator = np.random.default_rng(1)
    labels = np.where(generator.random(right.shape) < 0.3, generator.integers(0, classes, right.shape), right)
    energies = label_energies(labels, classes, 0.7)
    for iterations in (1, 4):
        found = dense_crf(energies, pixels, iterations=iterations, near=NEAR, alike=ALIKE, backend=backend)
        exact = exact_crf(energies, pixels, iterations, NEAR, ALIKE)
        np.testing.assert_allclose(found.sum(0), 1, rtol=1e-5)
        assert np.abs(found - exact).mean() < 0.02
        assert (found.argmax(0) == exact.argmax(0)).mean() > 0.97


def test_a_noisy_mask_snaps_to_the_edge_of_its_photo(backend):
    pixels, right = photo(60, 70)
    generator = np.random.default_rng(2)
    shifted = np.roll(right, 6, 1) & (np.arange(70) >= 6)  # too far to the right
    noisy = shifted ^ (generator.random(right.shape) < 0.1)
    assert (noisy == right).mean() < 0.85
    energies = label_energies(noisy, 2, 0.7)
    found = dense_crf(energies, pixels, iterations=4, near=NEAR, alike=ALIKE, backend=backend).argmax(0)
    assert (found == right).mean() > 0.99
    # Without colours the edge stays where the mask has it, and noise goes; without anything, all stays.
    smooth = dense_crf(energies, pixels, iterations=4, near=NEAR, alike=(50, 5, 0)).argmax(0)
    assert (smooth == shifted).mean() > 0.97 and (smooth == right).mean() < 0.95
    alone = dense_crf(energies, pixels, iterations=4, near=(3, 0), alike=(50, 5, 0)).argmax(0)
    np.testing.assert_array_equal(alone, noisy)


def test_energies_are_those_of_labels_that_are_mostly_right():
    energies = label_energies(np.array([[0, 2]]), 3, 0.7)
    np.testing.assert_allclose(np.exp(-energies[:, 0, 0]), [0.7, 0.15, 0.15], rtol=1e-5)
    np.testing.assert_allclose(np.exp(-energies[:, 0, 1]), [0.15, 0.15, 0.7], rtol=1e-5)
    with pytest.raises(ValueError, match="share must lie between"):
        label_energies(np.zeros((1, 1)), 2, 0.5)


def test_pixels_of_another_image_are_refused():
    with pytest.raises(ValueError, match="not of one image"):
        dense_crf(np.zeros((2, 4, 4)), np.zeros((4, 5, 3), np.uint8), iterations=1, near=NEAR, alike=ALIKE)
