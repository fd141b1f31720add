import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fasttrain.loading.randomness import Operation, distinct_keys, philox, random_bits, uniforms

# Known answers of the authors' library Random123 (kat_vectors, philox4x32 with 10 rounds).
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN)
def test_philox_gives_the_known_answers(
    counter: tuple[int, ...], key: tuple[int, int], expected: tuple[int, ...]
) -> None:
    counters = np.array(counter, np.uint32)[:, None].repeat(3, 1)
    np.testing.assert_array_equal(philox(counters, key), np.array(expected, np.uint32)[:, None].repeat(3, 1))


@given(
    st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=40),
    st.integers(0, 2**64 - 1),
    st.integers(0, 10_000),
    st.integers(1, 7),
)
def test_draws_do_not_depend_on_what_else_is_drawn(keys: list[int], seed: int, epoch: int, batch: int) -> None:
    array = np.array(keys, np.uint64)
    together = uniforms(seed, epoch, array, Operation.CROP)
    pieces = [uniforms(seed, epoch, array[i : i + batch], Operation.CROP) for i in range(0, len(array), batch)]
    np.testing.assert_array_equal(together, np.concatenate(pieces, axis=1))
    assert together.min() >= 0 and together.max() < 1


def test_seed_epoch_key_and_operation_all_matter() -> None:
    keys = np.arange(1000, dtype=np.uint64)
    base = random_bits(1, 2, keys, Operation.FLIP)
    others = [
        random_bits(3, 2, keys, Operation.FLIP),
        random_bits(1 + 2**32, 2, keys, Operation.FLIP),
        random_bits(1, 3, keys, Operation.FLIP),
        random_bits(1, 2, keys + np.uint64(2**32), Operation.FLIP),
        random_bits(1, 2, keys, Operation.JITTER),
    ]
    for other in others:
        assert (base == other).sum() <= 2  # by chance 4000 / 2**32


def test_draws_are_uniform_and_uncorrelated() -> None:
    draws = uniforms(0, 0, np.arange(50_000, dtype=np.uint64), Operation.CROP)
    counts = np.stack([np.histogram(draw, 20, (0, 1))[0] for draw in draws])
    assert (np.abs(counts - 2500) < 5 * np.sqrt(2500)).all()
    correlation = np.corrcoef(np.concatenate([draws, np.roll(draws, 1, axis=1)]))
    assert np.abs(correlation - np.eye(8)).max() < 0.03


@given(st.lists(st.integers(0, 5), max_size=60))
def test_distinct_keys_are_distinct_and_first_ones_stay(values: list[int]) -> None:
    keys = np.array(values, np.uint64)
    result = distinct_keys(keys)
    assert len(np.unique(result)) == len(values)
    first = [values.index(value) == position for position, value in enumerate(values)]
    np.testing.assert_array_equal(result[first], keys[first])
    # What is appended later does not change what stood before.
    np.testing.assert_array_equal(distinct_keys(np.append(keys, np.uint64(3)))[: len(keys)], result)
