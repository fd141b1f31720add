"""A long tail and wrong labels: the sizes and shares that were asked for, and the same ones again."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fasttrain.base.errors import SourceError
from fasttrain.beton_build.corrupt import corrupt, write_labels
from fasttrain.beton_build.sources import SampleList

CLASSES = ["a", "b", "c", "d"]


def samples(each: int = 500, order: int = 0) -> SampleList:
    """As many of each class, in some order."""
    rows = np.random.default_rng(order).permutation(4 * each)
    ids = [f"{CLASSES[row % 4]}/{row}.jpg" for row in rows]
    return SampleList(ids, [], (rows % 4).astype(np.int64), CLASSES)


@given(st.floats(1, 50), st.integers(100, 500))
def test_sizes_fall_exponentially_from_class_to_class(imbalance: float, most: int) -> None:
    found = corrupt(samples(), imbalance=imbalance, most=most)
    counts = np.bincount(found.labels, minlength=4)
    assert counts[0] == most
    assert counts.tolist() == [round(most * imbalance ** (-number / 3)) for number in range(4)]
    assert not found.flipped.any()


def test_by_default_no_sample_is_left_that_could_be_there() -> None:
    assert np.bincount(corrupt(samples(80), imbalance=8).labels).tolist() == [80, 40, 20, 10]
    assert len(corrupt(samples(80)).rows) == 320


@pytest.mark.parametrize("noise", [0.0, 0.2, 0.6])
def test_labels_are_wrong_as_often_as_asked_and_evenly_so(noise: float) -> None:
    data = samples(2000)
    found = corrupt(data, noise=noise)
    true = data.labels[found.rows]
    assert (found.flipped == (found.labels != true)).all()
    assert found.flipped.mean() == pytest.approx(noise, abs=0.02)
    for number in range(4):
        wrong = found.labels[(true == number) & found.flipped]
        shares = np.bincount(wrong, minlength=4) / max(1, len(wrong))
        assert shares[number] == 0
        assert not noise or np.delete(shares, number) == pytest.approx(np.full(3, 1 / 3), abs=0.06)


def test_what_happens_to_a_sample_depends_on_id_and_seed_alone() -> None:
    def labels(data: SampleList, **more: float) -> dict[str, int]:
        found = corrupt(data, imbalance=5, **more)  # type: ignore[arg-type]
        return {data.ids[row]: label for row, label in zip(found.rows, found.labels.tolist(), strict=True)}

    first = labels(samples(), noise=0.3)
    assert labels(samples(order=1), noise=0.3) == first
    assert labels(samples(), noise=0.3, seed=1) != first
    more_noise = labels(samples(), noise=0.5)
    clean = labels(samples())
    assert all(more_noise[name] == label for name, label in first.items() if label != clean[name])


def test_a_class_that_is_too_small_is_named() -> None:
    with pytest.raises(SourceError, match="100 samples of the class 'a' are wanted, of 80"):
        corrupt(samples(80), most=100)
    with pytest.raises(SourceError, match="0 samples of the class 'c'"):
        corrupt(samples(80), imbalance=10_000, most=80)


def test_the_table_holds_names_of_classes(tmp_path: Path) -> None:
    data = samples(2)
    write_labels(tmp_path / "l.csv", data, np.array([0, 3]), np.array([1, 2]))
    assert (tmp_path / "l.csv").read_text() == f"id,label\n{data.ids[0]},b\n{data.ids[3]},c\n"
