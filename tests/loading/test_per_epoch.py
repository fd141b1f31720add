"""Sizes of images and batches that change from epoch to epoch, on the same loader."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fasttrain import Loader
from fasttrain.base.config import Settings, load_settings
from fasttrain.base.errors import ConfigError, LoaderError
from fasttrain.loading.batch import Batch
from fasttrain.loading.dataset import ImageDataset
from fasttrain.loading.per_epoch import EpochRule, EpochShape, Ramp, Stages
from fasttrain.loading.views import eval_view, train_view

from .test_backends import each_backend, each_keeping_backend, equal
from .test_resident_backend import with_resident


class Outer(Settings):
    rule: EpochRule


def rule(given: Any) -> Any:
    return load_settings(Outer, {"rule": given}).rule


def ffcvs(epoch: int, start: int, end: int, low: int, high: int) -> int:
    """`get_resolution` of ffcv-imagenet's train_imagenet.py."""
    if epoch <= start:
        return low
    if epoch >= end:
        return high
    return int(np.round(np.interp([epoch], [start, end], [low, high])[0] / 32)) * 32


@pytest.mark.parametrize(("start", "end"), [(65, 76), (29, 34), (0, 35), (13, 14)])
@pytest.mark.parametrize(("low", "high"), [(160, 192), (128, 224), (96, 320)])
def test_a_ramp_is_ffcvs(start: int, end: int, low: int, high: int) -> None:
    ramp = rule({"kind": "ramp", "from": low, "to": high, "start": start, "end": end, "multiple": 32})
    assert [ramp(epoch) for epoch in range(90)] == [ffcvs(epoch, start, end, low, high) for epoch in range(90)]
    assert ramp.last_epoch == end


def test_a_ramp_may_fall_and_take_other_multiples() -> None:
    ramp = rule({"from": 30, "to": 10, "start": 1, "end": 5, "multiple": 10})
    assert [ramp(epoch) for epoch in range(7)] == [30, 30, 20, 20, 20, 10, 10]  # halves to the even multiple


def test_stages_are_nicos() -> None:
    sizes = rule({0: 224, 60: 448, 120: 512})
    assert [sizes(epoch) for epoch in (0, 59, 60, 119, 120, 999)] == [224, 224, 448, 448, 512, 512]
    assert sizes.last_epoch == 120


@pytest.mark.parametrize("given", [{0: 224, 60: 448}, {"from": 64, "to": 96, "end": 3}])
def test_rules_outlive_being_stored(given: Any) -> None:
    first = load_settings(Outer, {"rule": given})
    again = load_settings(Outer, first.model_dump(mode="json"))
    assert again == first and isinstance(again.rule, Ramp if "end" in given else Stages)
    assert again.model_dump(mode="json") == first.model_dump(mode="json")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"from": 150, "to": 192, "end": 3}, "150 is no multiple of 32; take one that is, or set multiple"),
        ({"from": 160, "to": 192, "start": 5, "end": 5}, "must end after it starts, not in epoch 5 after 5"),
        ({"from": 160, "end": 5}, r"rule\.ramp\.to: Field required"),
        ({"from": 160, "too": 192, "end": 5}, r"did you mean 'rule\.to'"),
        ({0: 224, 60: 448, 30: 320}, r"rise from 0, as in \{0: 224, 60: 448\}"),
        ({10: 224}, "rise from 0"),
        ({0: 0}, "greater than or equal to 1"),
        ({-1: 32}, "greater than or equal to 0"),
        ({0: "large"}, "large"),
        (160, r"\{0: 224, 60: 448\}, or a ramp, as in \{kind: ramp, from: 160, to: 192, end: 35\}"),
        ({}, "or a ramp"),
    ],
)
def test_wrong_rules_are_refused_in_a_sentence(given: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        rule(given)
    assert "\n" not in str(caught.value)


SIZES, BATCHES = (24, 24, 40, 17), (6, 4, 4, 9)


def changing(data: Any, **options: Any) -> Loader:
    chosen: dict[str, Any] = {"view": train_view(99), "threads": 2, "seed": 3, **options}
    return Loader(data, BATCHES.__getitem__, size=SIZES.__getitem__, **chosen)


def plain(data: Any, epoch: int, **options: Any) -> list[Batch]:
    """The epoch, from a loader of its own."""
    with Loader(data, BATCHES[epoch], view=train_view(SIZES[epoch]), threads=2, seed=3, **options) as loader:
        loader.set_epoch(epoch)
        return list(loader)


@each_backend
@pytest.mark.parametrize("rest", ["drop", "wrap"])
def test_each_epoch_is_that_of_a_loader_of_its_sizes(backend: str, rest: str, keep_beton: Path) -> None:
    with changing(keep_beton, backend=backend, rest=rest) as loader:
        for epoch, (size, batch) in enumerate(zip(SIZES, BATCHES, strict=True)):
            steps = 20 // batch if rest == "drop" else -(-20 // batch)
            assert loader.shape_of(epoch) == EpochShape(size, batch, steps)
            assert len(loader) == loader.steps_left == steps and loader.batch_size == batch
            passed = list(loader)
            assert {tuple(one.images.shape) for one in passed} == {(batch, 3, size, size)}
            assert equal(passed, plain(keep_beton, epoch, backend=backend, rest=rest))


@each_keeping_backend
def test_images_in_a_devices_memory_stay_there(backend: str, keep_beton: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = [plain(keep_beton, epoch) for epoch in range(len(SIZES))]
    with with_resident(changing(keep_beton), backend) as loader:
        forbid_decoding(loader, monkeypatch)
        for reference in expected:
            for mine, theirs in zip(loader, reference, strict=True):
                assert mine.images.shape == theirs.images.shape and torch.equal(mine.ids, theirs.ids)
                assert (mine.images - theirs.images).abs().mean() < 0.02


def forbid_decoding(loader: Loader, monkeypatch: pytest.MonkeyPatch) -> None:
    def decode(self: ImageDataset, *_: Any) -> None:
        raise AssertionError("an image was read again")

    for kind in type(loader.dataset).__mro__ + type(getattr(loader.dataset, "_inner", None)).__mro__:
        if kind.__module__ == "fasttrain.loading.dataset" and "decode" in vars(kind) and kind is not ImageDataset:
            monkeypatch.setattr(kind, "decode", decode)
            monkeypatch.setattr(kind, "stored", decode)


@each_keeping_backend
def test_decoded_images_and_threads_are_used_again(
    backend: str, keep_beton: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with changing(keep_beton, backend=backend, memory_budget="1GB", rest="wrap") as loader:
        dataset, workers = loader.dataset, loader._backend
        first = list(loader)
        assert equal(first, plain(keep_beton, 0, backend=backend, rest="wrap", memory_budget="1GB"))
        count = threading.active_count()
        forbid_decoding(loader, monkeypatch)
        for size in SIZES[1:]:
            assert {one.images.shape[-1] for one in loader} == {size}
        assert loader.dataset is dataset and loader._backend is workers and threading.active_count() == count


@each_backend
def test_a_state_taken_in_the_second_size_goes_on_there(backend: str, keep_beton: Path) -> None:
    with changing(keep_beton, backend=backend) as loader:
        loader.set_epoch(2)
        passed = iter(loader)
        for _ in range(3):
            next(passed)
        state = loader.state_dict()
        expected = [*passed, *loader]
    assert state["epoch"] == 2 and state["offset"] == 3 * BATCHES[2]
    with changing(keep_beton, backend=backend) as loader:
        loader.load_state_dict(state)
        assert loader.steps_left == len(loader) - 3 == 2
        assert equal([*loader, *loader], expected)


def test_ranks_share_batches_of_changing_size(keep_beton: Path) -> None:
    for epoch in range(len(SIZES)):
        with changing(keep_beton) as alone:
            alone.set_epoch(epoch)
            whole = [row for batch in alone for row in batch.ids.tolist()]
        steps = []
        for rank in range(2):
            with changing(keep_beton, rank=rank, world=2) as loader:
                loader.set_epoch(epoch)
                steps.append([batch.ids.tolist() for batch in loader])
        seen = [row for both in zip(*steps, strict=True) for rows in both for row in rows]
        assert seen == whole[: len(seen)] and len(seen) == 20 // (2 * BATCHES[epoch]) * 2 * BATCHES[epoch]


def test_evaluation_may_change_its_size_too(keep_beton: Path) -> None:
    with Loader(keep_beton, 8, view=eval_view(64), size=lambda epoch: 16 + epoch) as loader:
        for epoch in range(2):
            assert {one.images.shape[-1] for one in loader} == {16 + epoch}


@pytest.mark.parametrize("value", [0, -1, 1.5, "32", None, True])
def test_functions_must_give_whole_numbers(value: Any, keep_beton: Path) -> None:
    with pytest.raises(LoaderError, match="batch_size must be a whole number from 1 on in each epoch, and is"):
        Loader(keep_beton, lambda epoch: value)
    with Loader(keep_beton, 4, size=lambda epoch: value if epoch == 1 else 8) as loader:
        list(loader)
        with pytest.raises(LoaderError, match=r"size must be .* in epoch 1"):
            list(loader)


def test_an_epoch_too_short_for_its_batches_is_named(keep_beton: Path) -> None:
    with (
        Loader(keep_beton, lambda epoch: 4 + 40 * epoch) as loader,
        pytest.raises(LoaderError, match="a batch of 44 needs 44 samples, the data set has 20; use a batch size of 20"),
    ):
        loader.shape_of(1)
