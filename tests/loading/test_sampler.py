import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fasttrain.base.errors import LoaderError
from fasttrain.loading.order import EpochOrder, shuffled, windowed
from fasttrain.loading.sampler import PADDING, Partition

sizes, worlds, batches = st.integers(1, 200), st.integers(1, 8), st.integers(1, 33)


def deal(samples: int, world: int, batch: int, order: str, rest: str = "drop") -> np.ndarray:
    """(world, steps, batch) positions of all ranks, whose numbers of steps are checked."""
    ranks = []
    for rank in range(world):
        partition = Partition(samples, batch, order, rank, world, rest)  # type: ignore[arg-type]
        dealt = list(partition.batches())
        assert len(dealt) == partition.steps
        ranks.append(np.stack(dealt))
    return np.stack(ranks)


def numbered(samples: int) -> EpochOrder:
    rows = np.arange(samples)
    return EpochOrder(rows, (rows * 7919).astype(np.uint64))


@given(sizes, worlds, batches)
def test_evaluation_sees_every_sample_exactly_once(samples: int, world: int, batch: int) -> None:
    dealt = deal(samples, world, batch, "sequential")
    real = dealt[dealt != PADDING]
    np.testing.assert_array_equal(np.sort(real), np.arange(samples))
    assert dealt.shape[2] == batch  # padded to full size


@given(sizes, worlds, batches, st.integers(0, 5))
def test_training_sees_no_sample_twice_and_fills_every_batch(samples: int, world: int, batch: int, epoch: int) -> None:
    if samples < world * batch:
        with pytest.raises(LoaderError, match=r"use a batch size of|start .* processes or fewer"):
            Partition(samples, batch, "random", 0, world)
        return
    positions = deal(samples, world, batch, "random").ravel()
    assert PADDING not in positions
    seen = shuffled(numbered(samples), 0, epoch).rows[positions]
    assert len(np.unique(seen)) == len(seen) == samples // (world * batch) * world * batch


@given(sizes, worlds, batches)
def test_wrapping_sees_every_sample_and_fills_every_batch(samples: int, world: int, batch: int) -> None:
    positions = np.sort(deal(samples, world, batch, "random", "wrap").ravel())
    np.testing.assert_array_equal(positions, np.arange(-(-samples // (world * batch)) * world * batch))
    times = np.bincount(positions % samples, minlength=samples)  # how often each sample is seen
    assert times.min() >= 1 and times.max() - times.min() <= 1


@given(
    st.sampled_from(["random", "windowed", "sequential"]),
    st.sampled_from(["drop", "wrap"]),
    st.integers(1, 8),
    st.integers(1, 6),
    st.integers(48, 200),
)
def test_global_batches_do_not_depend_on_the_world(order: str, rest: str, world: int, batch: int, samples: int) -> None:
    many = deal(samples, world, batch, order, rest)
    one = deal(samples, 1, batch * world, order, rest)
    np.testing.assert_array_equal(many.transpose(1, 0, 2).reshape(one.shape[1:]), one[0])


@given(st.integers(1, 400), st.integers(1, 20), st.integers(1, 6), st.integers(0, 3))
def test_the_windowed_order_is_random_and_stays_in_its_window(
    samples: int, a_block: int, window: int, epoch: int
) -> None:
    listed = numbered(samples)
    blocks = listed.rows // a_block
    order = windowed(listed, blocks, 3, epoch, window).rows
    np.testing.assert_array_equal(np.sort(order), listed.rows)
    _, first = np.unique(blocks[order], return_index=True)
    _, last = np.unique(blocks[order][::-1], return_index=True)
    last = samples - 1 - last
    for place in range(samples):  # blocks that are being read: begun, and not yet read to their end
        assert ((first <= place) & (last >= place)).sum() <= window
    if samples > 20 * a_block and window > 1:
        assert not np.array_equal(order, windowed(listed, blocks, 3, epoch + 1, window).rows)
        assert not np.array_equal(order, windowed(listed, blocks, 4, epoch, window).rows)


@given(
    st.integers(20, 60),
    st.integers(1, 4),
    st.integers(1, 5),
    st.sampled_from([("sequential", "drop"), ("random", "drop"), ("windowed", "wrap")]),
    st.data(),
)
def test_going_on_from_an_offset_gives_the_remaining_batches(
    samples: int, world: int, batch: int, mode: tuple, data: st.DataObject
) -> None:
    partition = Partition(samples, batch, mode[0], data.draw(st.integers(0, world - 1)), world, mode[1])
    done = data.draw(st.integers(0, partition.steps))
    whole = list(partition.batches())
    rest = list(partition.batches(done * partition.global_batch))
    assert len(rest) == partition.steps_from(done * partition.global_batch)
    assert [part.tolist() for part in rest] == [part.tolist() for part in whole[done:]]


def test_the_remainder_is_another_one_each_epoch() -> None:
    partition = Partition(50, 16, "random")
    left_out = []
    for epoch in range(30):
        seen = shuffled(numbered(50), 0, epoch).rows[np.concatenate(list(partition.batches()))]
        left_out += sorted(set(range(50)) - set(seen.tolist()))
    assert len(left_out) == 60
    assert len(set(left_out)) > 25


def test_order_depends_on_seed_and_epoch_and_samples_alone() -> None:
    rows = np.arange(100)
    keys = np.random.default_rng(0).integers(0, 2**63, 100).astype(np.uint64)
    listed = EpochOrder(rows, keys)
    order = shuffled(listed, 1, 2)
    assert sorted(order.rows.tolist()) == rows.tolist()
    assert (order.keys == keys[order.rows]).all()
    assert (order.rows == shuffled(listed, 1, 2).rows).all()
    assert (order.rows != shuffled(listed, 1, 3).rows).any() and (order.rows != shuffled(listed, 2, 2).rows).any()
    listed_otherwise = listed.take(np.random.default_rng(1).permutation(100))
    assert (shuffled(listed_otherwise, 1, 2).rows == order.rows).all()


def test_impossible_partitions_say_why() -> None:
    with pytest.raises(LoaderError, match="batch size must be at least 1"):
        Partition(10, 0, "random")
    with pytest.raises(LoaderError, match="rank 3 is not one of a world of 2"):
        Partition(10, 1, "random", 3, 2)
    with pytest.raises(LoaderError, match="holds no samples"):
        Partition(0, 1, "sequential")
    with pytest.raises(LoaderError, match="'shuffle'"):
        Partition(10, 1, "shuffle")  # type: ignore[arg-type]
    with pytest.raises(LoaderError, match="rest must be one of drop, wrap, not 'pad'"):
        Partition(10, 1, "random", rest="pad")  # type: ignore[arg-type]
    with pytest.raises(LoaderError, match="each of 4 processes needs 4 samples, the data set has 3; start 3 processes"):
        Partition(3, 1, "random", 0, 4)
    with pytest.raises(LoaderError, match="use a batch size of 2 or less, or rest='wrap'"):
        Partition(10, 3, "random", 0, 4)
