import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fasttrain.base.errors import LoaderError
from fasttrain.loading.sampler import PADDING, Partition, shuffled, windowed

sizes, worlds, batches = st.integers(1, 200), st.integers(1, 8), st.integers(1, 33)


def deal(samples: int, world: int, batch: int, order: str, rows: np.ndarray) -> np.ndarray:
    """(world, steps, batch) rows of all ranks, whose numbers of steps are checked."""
    ranks = []
    for rank in range(world):
        partition = Partition(samples, batch, order, rank, world)  # type: ignore[arg-type]
        dealt = list(partition.batches(rows))
        assert len(dealt) == partition.steps
        ranks.append(np.stack(dealt))
    return np.stack(ranks)


@given(sizes, worlds, batches)
def test_evaluation_sees_every_sample_exactly_once(samples: int, world: int, batch: int) -> None:
    dealt = deal(samples, world, batch, "sequential", np.arange(samples))
    real = dealt[dealt != PADDING]
    np.testing.assert_array_equal(np.sort(real), np.arange(samples))
    assert dealt.shape[2] == batch  # padded to full size


@given(sizes, worlds, batches, st.integers(0, 5))
def test_training_sees_no_sample_twice_and_fills_every_batch(samples: int, world: int, batch: int, epoch: int) -> None:
    rows, keys = np.arange(samples), np.arange(samples, dtype=np.uint64)
    if samples < world * batch:
        with pytest.raises(LoaderError, match="use a batch size of"):
            Partition(samples, batch, "random", 0, world)
        return
    dealt = deal(samples, world, batch, "random", shuffled(rows, keys, 0, epoch))
    seen = dealt.ravel()
    assert PADDING not in seen
    assert len(np.unique(seen)) == len(seen) == samples // (world * batch) * world * batch


@given(
    st.sampled_from(["random", "windowed", "sequential"]), st.integers(1, 4), st.integers(1, 6), st.integers(24, 120)
)
def test_global_batches_do_not_depend_on_the_world(order: str, world: int, batch: int, samples: int) -> None:
    rows = np.random.default_rng(samples).permutation(samples)
    many = deal(samples, world, batch, order, rows)
    one = deal(samples, 1, batch * world, order, rows)
    np.testing.assert_array_equal(many.transpose(1, 0, 2).reshape(one.shape[1:]), one[0])


@given(st.integers(1, 400), st.integers(1, 20), st.integers(1, 6), st.integers(0, 3))
def test_the_windowed_order_is_random_and_stays_in_its_window(
    samples: int, a_block: int, window: int, epoch: int
) -> None:
    rows = np.arange(samples)
    keys, blocks = (rows * 7919).astype(np.uint64), rows // a_block
    order = windowed(rows, keys, blocks, 3, epoch, window)
    np.testing.assert_array_equal(np.sort(order), rows)
    _, first = np.unique(blocks[order], return_index=True)
    _, last = np.unique(blocks[order][::-1], return_index=True)
    last = samples - 1 - last
    for place in range(samples):  # blocks that are being read: begun, and not yet read to their end
        assert ((first <= place) & (last >= place)).sum() <= window
    if samples > 20 * a_block and window > 1:
        assert not np.array_equal(order, windowed(rows, keys, blocks, 3, epoch + 1, window))
        assert not np.array_equal(order, windowed(rows, keys, blocks, 4, epoch, window))


@given(st.integers(1, 60), st.integers(1, 4), st.integers(1, 5), st.data())
def test_going_on_from_an_offset_gives_the_remaining_batches(
    samples: int, world: int, batch: int, data: st.DataObject
) -> None:
    partition = Partition(samples, batch, "sequential", data.draw(st.integers(0, world - 1)), world)
    rows = np.arange(samples)
    done = data.draw(st.integers(0, partition.steps))
    whole = list(partition.batches(rows))
    rest = list(partition.batches(rows, done * partition.global_batch))
    assert [part.tolist() for part in rest] == [part.tolist() for part in whole[done:]]


def test_the_remainder_is_another_one_each_epoch() -> None:
    rows, keys = np.arange(50), np.arange(50, dtype=np.uint64)
    partition = Partition(50, 16, "random")
    left_out = []
    for epoch in range(30):
        seen = np.concatenate(list(partition.batches(shuffled(rows, keys, 0, epoch))))
        left_out += sorted(set(range(50)) - set(seen.tolist()))
    assert len(left_out) == 60
    assert len(set(left_out)) > 25


def test_order_depends_on_seed_and_epoch_and_samples_alone() -> None:
    rows = np.arange(100)
    keys = np.random.default_rng(0).integers(0, 2**63, 100).astype(np.uint64)
    order = shuffled(rows, keys, 1, 2)
    assert sorted(order.tolist()) == rows.tolist()
    assert (order == shuffled(rows, keys, 1, 2)).all()
    assert (order != shuffled(rows, keys, 1, 3)).any() and (order != shuffled(rows, keys, 2, 2)).any()
    listed_otherwise = np.random.default_rng(1).permutation(100)
    assert (shuffled(rows[listed_otherwise], keys[listed_otherwise], 1, 2) == order).all()


def test_impossible_partitions_say_why() -> None:
    with pytest.raises(LoaderError, match="batch size must be at least 1"):
        Partition(10, 0, "random")
    with pytest.raises(LoaderError, match="rank 3 is not one of a world of 2"):
        Partition(10, 1, "random", 3, 2)
    with pytest.raises(LoaderError, match="holds no samples"):
        Partition(0, 1, "sequential")
    with pytest.raises(LoaderError, match="'shuffle'"):
        Partition(10, 1, "shuffle")  # type: ignore[arg-type]
