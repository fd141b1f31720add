"""Patches, orders and positions beside plain loops."""

import numpy as np
import pytest
import torch

from fasttrain.training.pretraining.patches import (
    inverse_order,
    normalised_patches,
    patchify,
    random_order,
    rows_of,
    sine_positions,
    unpatchify,
)


def test_patches_are_cut_row_by_row_and_put_back() -> None:
    images = torch.randn(2, 3, 8, 12)
    patches = patchify(images, 4)
    assert patches.shape == (2, 6, 48)
    pixels = images.numpy()
    for sample, number, y, x, colour in np.ndindex(2, 6, 4, 4, 3):
        row, column = divmod(number, 3)
        expected = pixels[sample, colour, 4 * row + y, 4 * column + x]
        assert patches[sample, number, (y * 4 + x) * 3 + colour] == expected
    assert torch.equal(unpatchify(patches, 4, 2, 3), images)
    channels_last = images.to(memory_format=torch.channels_last)
    assert torch.equal(patchify(channels_last, 4), patches)


def test_patches_are_normalised_each_by_itself() -> None:
    patches = torch.randn(2, 3, 48) * 5 + 2
    values = patches.numpy().astype(np.float64)
    expected = (values - values.mean(-1, keepdims=True)) / np.sqrt(values.var(-1, ddof=1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(normalised_patches(patches), expected, rtol=1e-4, atol=1e-5)


def test_orders_are_permutations_of_each_image_and_are_undone() -> None:
    torch.manual_seed(0)
    order = random_order(8, 16, torch.device("cpu"))
    assert torch.equal(order.sort(1).values, torch.arange(16).expand(8, 16))
    assert len({tuple(row) for row in order.tolist()}) == 8
    tokens = torch.randn(8, 16, 5)
    assert torch.equal(rows_of(rows_of(tokens, order), inverse_order(order)), tokens)


def test_positions_are_those_of_the_paper() -> None:
    table = sine_positions(8, 3, 2).numpy()
    for number in range(6):
        row, column = divmod(number, 2)
        expected = []
        for place in (column, row):
            angles = [place / 10000 ** (index / 2) for index in range(2)]
            expected += [*np.sin(angles), *np.cos(angles)]
        np.testing.assert_allclose(table[number], expected, atol=1e-6)
    with pytest.raises(ValueError, match="4 divides, not 6"):
        sine_positions(6, 2, 2)
