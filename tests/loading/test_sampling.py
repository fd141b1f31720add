"""Balanced classes, weighted samples, epochs of other lengths, wrapping: which samples, how often, in which views."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fasttrain.base.errors import BetonError, LoaderError
from fasttrain.beton_build.format import FLOAT_FIELD, IMAGE_FIELD, INT_FIELD, MODE_RAW, FieldSpec
from fasttrain.beton_build.values import EncodedImage
from fasttrain.beton_build.writer import BetonWriter
from fasttrain.loading.loader import Loader
from fasttrain.loading.order import EpochOrder, Sampling, drawn
from fasttrain.loading.planner import Planner
from fasttrain.loading.views import train_view

CLASSES = [0] * 30 + [1] * 8 + [2] * 2


@pytest.fixture(scope="module")
def long_tail(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 samples of three classes, 30, 8 and 2 of each, with a field of weights."""
    path = tmp_path_factory.mktemp("tail") / "a.beton"
    fields = (FieldSpec("image", IMAGE_FIELD), FieldSpec("label", INT_FIELD), FieldSpec("trust", FLOAT_FIELD))
    with BetonWriter(path, len(CLASSES), fields) as writer:
        for row, label in enumerate(CLASSES):
            pixels = bytes([row, 2 * row, 3 * row]) * 64
            writer.add(f"s{row}", [EncodedImage(pixels, MODE_RAW, 8, 8), label, float(row % 4)])
    return path


def epochs_of(path: Path, epochs: int, batch: int = 8, **options: Any) -> list[list[int]]:
    with Loader(path, batch, view=train_view(8), threads=1, **options) as loader:
        return [[int(row) for batch_ in loader for row in batch_.ids] for _ in range(epochs)]


def classes_of(rows: list[int]) -> list[int]:
    return np.bincount([CLASSES[row] for row in rows], minlength=3).tolist()


def test_classes_are_balanced_and_their_samples_take_turns(long_tail: Path) -> None:
    epochs = epochs_of(long_tail, 6, 12, sampling=Sampling(class_balance=1, draws=60))
    for rows in epochs:
        assert classes_of(rows) == [20, 20, 20]
        times = Counter(rows)
        for label, expected in ((0, 20 / 30), (1, 20 / 8), (2, 20 / 2)):
            counts = [times[row] for row in range(40) if CLASSES[row] == label]
            assert set(counts) <= {int(np.floor(expected)), int(np.ceil(expected))}
        assert rows != sorted(rows)
    assert len({row for rows in epochs for row in rows}) == 40  # another choice of the large class each epoch
    assert epochs[0] != epochs[1]


def test_balance_may_go_half_way(long_tail: Path) -> None:
    rows = epochs_of(long_tail, 1, 10, sampling=Sampling(class_balance=0.5, draws=1000))[0]
    shares = np.sqrt([30, 8, 2])
    np.testing.assert_allclose(classes_of(rows), 1000 * shares / shares.sum(), atol=1)


def test_weights_decide_how_often(long_tail: Path) -> None:
    weights = np.arange(40) % 4
    given_ = epochs_of(long_tail, 1, 10, sampling=Sampling(weights=weights, draws=600))[0]
    assert [Counter(given_)[row] for row in range(40)] == (weights * 10).tolist()
    assert given_ == epochs_of(long_tail, 1, 10, sampling=Sampling(weights="trust", draws=600))[0]
    part = epochs_of(long_tail, 1, 3, indices=[1, 2, 3], sampling=Sampling(weights="trust", draws=6))[0]
    assert Counter(part) == {1: 1, 2: 2, 3: 3}


def test_an_epoch_of_another_length_uses_samples_evenly(long_tail: Path) -> None:
    short = epochs_of(long_tail, 8, 5, sampling=Sampling(draws=10))
    assert all(len(set(rows)) == 10 for rows in short) and len({row for rows in short for row in rows}) > 30
    long = Counter(epochs_of(long_tail, 1, 10, sampling=Sampling(draws=100))[0])
    assert set(long.values()) == {2, 3} and len(long) == 40


@pytest.mark.parametrize("options", [{"sampling": Sampling(draws=80)}, {"rest": "wrap", "batch": 80}])
def test_each_occurrence_has_a_view_of_its_own(long_tail: Path, options: dict[str, Any]) -> None:
    options = {"batch": 8, **options}
    with Loader(long_tail, options.pop("batch"), view=train_view(8), threads=1, **options) as loader:
        planned = list(planner_of(loader).epoch(0))
        rows = np.concatenate([batch.plan.rows for batch in planned])
        boxes = np.concatenate([batch.plan.boxes for batch in planned])
    assert sorted(rows.tolist()) == sorted([*range(40)] * 2)
    views: dict[int, set[tuple[int, ...]]] = {}
    for row, box in zip(rows.tolist(), boxes.tolist(), strict=True):
        views.setdefault(row, set()).add(tuple(box))
    assert sum(len(boxes_of) == 2 for boxes_of in views.values()) > 35


def planner_of(loader: Loader) -> Planner:
    return loader._planner


@pytest.mark.parametrize(
    "options",
    [
        {"sampling": Sampling(class_balance=1, draws=60)},
        {"rest": "wrap"},
        {"order": "windowed", "window": 1, "rest": "wrap", "sampling": Sampling(class_balance=0.5)},
    ],
)
def test_neither_world_nor_batch_matter_and_runs_go_on(long_tail: Path, options: dict[str, Any]) -> None:
    alone = epochs_of(long_tail, 1, 16, **options)[0]
    small = epochs_of(long_tail, 1, 8, **options)[0]
    shared = min(len(small), len(alone))  # the remainder depends on the batch
    assert small[:shared] == alone[:shared] and shared >= 40
    ranks = [epochs_of(long_tail, 1, 4, rank=rank, world=4, **options)[0] for rank in range(4)]
    assert [
        ranks[rank][step + k] for step in range(0, len(ranks[0]), 4) for rank in range(4) for k in range(4)
    ] == alone
    with Loader(long_tail, 8, view=train_view(8), threads=1, **options) as loader:
        next(iter(loader))
        state = loader.state_dict()
    with Loader(long_tail, 4, view=train_view(8), threads=1, **options) as loader:
        loader.load_state_dict(state)
        rest = [int(row) for batch in loader for row in batch.ids]
    assert rest[: shared - 8] == alone[8:shared] and len(rest) >= 28


def test_a_tiny_data_set_may_wrap_several_times(long_tail: Path) -> None:
    rows = epochs_of(long_tail, 1, 8, indices=[3, 5, 7], rest="wrap")[0]
    assert len(rows) == 8 and set(Counter(rows).values()) == {2, 3}
    assert rows[:3] == rows[3:6]  # the same order again


@given(st.integers(1, 60), st.integers(1, 200), st.integers(0, 5), st.data())
def test_occurrences_are_the_expected_ones_rounded(samples: int, draws: int, epoch: int, data: st.DataObject) -> None:
    numbers = st.lists(st.sampled_from([0.0, 0.25, 1.0, 3.0]), min_size=samples, max_size=samples)
    weights = np.array(data.draw(numbers))
    weights[data.draw(st.integers(0, samples - 1))] = 1.0
    rows = np.arange(samples)
    labels = rows % 3
    chosen = drawn(EpochOrder(rows, (rows * 7919).astype(np.uint64)), labels, weights, draws, 0, epoch)
    assert len(np.unique(chosen.keys)) == len(chosen.rows) == draws
    expected = weights / weights.sum() * draws
    times = np.bincount(chosen.rows, minlength=samples)
    assert (np.abs(times - expected) < 1 + 1e-9).all() and not times[weights == 0].any()
    of_class = np.bincount(labels, expected)
    assert (np.abs(np.bincount(labels[chosen.rows], minlength=len(of_class)) - of_class) < 1 + 1e-9).all()


def test_a_state_of_another_sampling_is_refused(long_tail: Path) -> None:
    with Loader(long_tail, 8, sampling=Sampling(class_balance=1)) as loader:
        state = loader.state_dict()
    for other in (None, Sampling(class_balance=0.5), Sampling(class_balance=1, draws=64)):
        with Loader(long_tail, 8, sampling=other) as loader, pytest.raises(LoaderError, match="another sampling"):
            loader.load_state_dict(state)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"class_balance": 1.5}, "between 0 and 1"),
        ({"draws": 0}, "at least 1 draw"),
        ({"weights": [1.0, 2.0]}, r"one number a sample \(40\)"),
        ({"weights": [-1.0] * 40}, "from 0 on, but sample 's0' has -1.0"),
        ({"weights": [1.0] * 39 + [float("nan")]}, "sample 's39' has nan"),
        ({"weights": ["1"] * 40}, "one number a sample"),
        ({"weights": [0.0] * 40}, "weight of 0"),
    ],
)
def test_impossible_sampling_says_why(long_tail: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(LoaderError, match=message):
        Loader(long_tail, 8, sampling=Sampling(**options))


def test_sampling_that_does_not_fit_the_data(long_tail: Path, photos: Path) -> None:
    with pytest.raises(BetonError, match="trust"):
        Loader(long_tail, 8, sampling=Sampling(weights="confidence"))
    with pytest.raises(LoaderError, match=r"is no \.beton, so it has no field 'trust'; build one with --keep trust"):
        Loader(photos, 8, sampling=Sampling(weights="trust"))
    with pytest.raises(LoaderError, match="classes cannot be balanced"):
        Loader(photos / "cat", 8, sampling=Sampling(class_balance=1))
    for options in ({"sampling": Sampling(draws=80)}, {"rest": "wrap"}):
        with pytest.raises(LoaderError, match="sequential order gives each sample once"):
            Loader(long_tail, 8, order="sequential", **options)  # type: ignore[arg-type]
