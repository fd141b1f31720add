"""The split: shares, stratification, and independence of the order."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fasttrain.base.errors import SourceError
from fasttrain.beton_build.split import groups_of, split_rows

counts = st.lists(st.integers(1, 60), min_size=1, max_size=8)


def make(sizes: list[int]) -> tuple[list[str], np.ndarray]:
    labels = np.repeat(np.arange(len(sizes)), sizes)
    return [f"{label}/{row}.jpg" for row, label in enumerate(labels)], labels


@given(counts, st.floats(0, 0.99), st.integers(0, 2**32))
def test_shares(sizes: list[int], fraction: float, seed: int) -> None:
    ids, labels = make(sizes)
    train, val = split_rows(ids, labels, fraction, seed)
    assert sorted([*train, *val]) == list(range(len(ids)))
    assert np.all(np.diff(train) > 0) and np.all(np.diff(val) > 0)
    chosen = np.bincount(labels[val], minlength=len(sizes))
    assert np.all(np.abs(chosen - np.array(sizes) * fraction) < 1 + 1e-9)
    assert np.all(chosen < sizes)  # something is left for training
    assert len(val) <= round(len(ids) * fraction)


def test_the_whole_share_is_met() -> None:
    ids, labels = make([10] * 7)
    assert len(split_rows(ids, labels, 0.25, 0)[1]) == round(70 * 0.25)


@given(counts, st.integers(0, 1000), st.randoms())
def test_the_order_does_not_matter(sizes: list[int], seed: int, random: object) -> None:
    ids, labels = make(sizes)
    order = list(range(len(ids)))
    random.shuffle(order)  # type: ignore[attr-defined]
    _, val = split_rows(ids, labels, 0.3, seed)
    _, shuffled = split_rows([ids[row] for row in order], labels[order], 0.3, seed)
    assert {ids[row] for row in val} == {ids[order[row]] for row in shuffled}


def test_the_seed_matters_and_unlabelled_samples_are_a_group() -> None:
    ids, labels = make([50, 50])
    assert not np.array_equal(split_rows(ids, labels, 0.5, 0)[1], split_rows(ids, labels, 0.5, 1)[1])
    _, val = split_rows(ids, np.full(100, -1), 0.2, 0)
    assert len(val) == 20
    assert split_rows([], np.zeros(0, np.int64), 0.2, 0)[1].size == 0


def test_each_group_of_a_class_has_its_share() -> None:
    ids, labels = make([60, 90])
    groups = np.array([0, 0, 0, 1, 1, None] * 25, object)
    _, val = split_rows(ids, labels, 0.2, 0, groups)
    for label in (0, 1):
        for group in (0, 1, None):
            members = (labels == label) & (groups == group)
            assert members[val].sum() == members.sum() * 0.2
    order = np.random.default_rng(0).permutation(len(ids))
    _, again = split_rows([ids[row] for row in order], labels[order], 0.2, 0, groups[order])
    assert {ids[row] for row in val} == {ids[order[row]] for row in again}


def test_groups_are_columns_or_first_folders() -> None:
    ids = ["photo/a/1.jpg", "art/b/2.jpg"]
    assert list(groups_of(ids, {}, "folder")) == ["photo", "art"]
    assert list(groups_of(ids, {"domain": [3, 4]}, "domain")) == [3, 4]
    with pytest.raises(SourceError, match="no column 'place'"):
        groups_of(ids, {"domain": [3, 4]}, "place")
    with pytest.raises(SourceError, match=r"1 samples lie in no folder .*: 'x.jpg'"):
        groups_of([*ids, "x.jpg"], {}, "folder")
