"""`Loader(memory_budget=…)`: what stays in memory, and that it changes no pixel."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fasttrain import Loader, Sampling
from fasttrain.base import process
from fasttrain.base.errors import ConfigError, LoaderError
from fasttrain.kernels.loading import RAW
from fasttrain.loading.memory_plan import plan_memory
from fasttrain.loading.open_dataset import BetonDataset, open_dataset
from fasttrain.loading.resident import ResidentDataset
from fasttrain.loading.views import eval_view, train_view

from .test_backends import batches, each_keeping_backend, equal
from .test_native import odd_images

VIEW = train_view(24)


def sizes_of(data: Path | list[Path]) -> tuple[int, int]:
    """Bytes of the images as they lie, and decoded."""
    dataset = open_dataset(data)
    rows = np.arange(dataset.num_samples)
    stored, pixels = int(dataset.stored_bytes(rows).sum()), int(3 * dataset.sizes(rows).prod(1).sum())
    dataset.close()
    return stored, pixels


@pytest.mark.parametrize("kind", ["keep_beton", "photos", "both"])
def test_the_budget_decides(kind: str, request: pytest.FixtureRequest, keep_beton: Path, photos: Path) -> None:
    data = [keep_beton, photos] if kind == "both" else request.getfixturevalue(kind)
    stored, pixels = sizes_of(data)
    assert stored < pixels
    dataset = open_dataset(data)
    rows = np.arange(dataset.num_samples)
    modes = {
        budget: plan_memory(dataset, rows, budget, None).mode for budget in (pixels, pixels - 1, stored, stored - 1, 1)
    }
    assert list(modes.values()) == ["resident", "cached", "cached", "windowed", "windowed"]
    assert plan_memory(dataset, rows, stored - 1, "sequential").mode == "streamed"
    assert plan_memory(dataset, rows, stored - 1, "windowed").mode == "windowed"
    assert plan_memory(dataset, rows[:3], pixels // 2, None).mode == "resident"


def test_two_windows_fit_the_budget(keep_beton: Path) -> None:
    dataset = BetonDataset(keep_beton)
    dataset.blocks = lambda rows: rows // 2  # type: ignore[method-assign]
    stored = int(dataset.stored_bytes(np.arange(20)).sum())
    for windows, expected in ((2, 2), (3, 1), (100, 1)):
        assert plan_memory(dataset, np.arange(20), stored // windows + 10, None).window == expected


def test_processes_of_a_machine_share_the_budget(keep_beton: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored, pixels = sizes_of(keep_beton)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    dataset = BetonDataset(keep_beton)
    assert plan_memory(dataset, np.arange(20), 2 * pixels, None).mode == "resident"
    assert plan_memory(dataset, np.arange(20), 2 * pixels - 1, None).mode == "cached"
    assert plan_memory(dataset, np.arange(20), stored, None).mode == "cached"  # one page cache for both


def test_stored_pixels_are_not_kept_twice(raw_beton: Path) -> None:
    assert plan_memory(BetonDataset(raw_beton), np.arange(20), "1TB", None).mode == "cached"


def test_the_plan_is_printed(keep_beton: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stored, _ = sizes_of(keep_beton)
    for budget, words in (
        ("1GB", "decoded images stay in memory, "),
        (stored + 1, "so the page cache holds them"),
        (stored // 2, "windowed order, 1 blocks of the file at a time"),
    ):
        with Loader(keep_beton, 4, view=VIEW, memory_budget=budget) as loader:
            assert words in str(loader.memory_plan)
            assert capsys.readouterr().err == f"{loader.memory_plan}\n"
    with Loader(keep_beton, 4, view=eval_view(8), memory_budget=stored // 2) as loader:
        assert "read from storage" in str(loader.memory_plan)
        assert torch.cat([batch.ids for batch in loader]).tolist() == list(range(20))


def test_a_share_of_what_is_available(keep_beton: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, pixels = sizes_of(keep_beton)
    monkeypatch.setattr(process, "available_memory", lambda: pixels)
    assert plan_memory(BetonDataset(keep_beton), np.arange(20), "auto", None).budget == int(0.75 * pixels)
    monkeypatch.setattr(process, "available_memory", lambda: None)
    with pytest.raises(LoaderError, match="does not tell how much memory"):
        Loader(keep_beton, 4, memory_budget="auto")
    with pytest.raises(ConfigError, match="'much' is not a size"):
        Loader(keep_beton, 4, memory_budget="much")
    with pytest.raises(LoaderError, match="at least 1 byte, not 0"):
        Loader(keep_beton, 4, memory_budget=0)


@each_keeping_backend
@pytest.mark.parametrize("decode", ["exact", "fast"])
@pytest.mark.parametrize("options", [{}, {"views": 2}, {"sampling": Sampling(class_balance=1, draws=50)}])
def test_resident_images_give_the_same_bits(
    backend: str, decode: str, options: dict[str, object], keep_beton: Path
) -> None:
    settings = {"view": VIEW, "batch_size": 5, "backend": backend, "threads": 3, **options}
    with (
        Loader(keep_beton, memory_budget="1GB", decode=decode, **settings) as resident,
        Loader(keep_beton, index=False, **settings) as plain,  # whole images are decoded without their index
    ):
        assert isinstance(resident.dataset, ResidentDataset)
        for _ in range(3):
            assert equal(list(resident), list(plain))
        seen = np.unique(np.concatenate([batch.ids.numpy() for batch in plain]))
        if backend == "native":
            assert (resident.dataset.stored(seen).stored == RAW).all()


@each_keeping_backend
def test_nothing_is_decoded_twice(backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images that Pillow alone decodes are kept, too."""
    root = odd_images(tmp_path)
    with Loader(root, 4, view=eval_view(16), memory_budget="1GB", backend=backend) as loader:
        first = list(loader)
        for path in root.rglob("*.*"):
            path.unlink()
        assert equal(list(loader), first)


@each_keeping_backend
def test_a_pass_that_is_left_and_broken_images(backend: str, broken_tree: Path) -> None:
    settings = {"view": eval_view(16), "on_error": "skip", "backend": backend}
    expected = batches(broken_tree, batch_size=3, **settings)
    with Loader(broken_tree, 3, memory_budget="1GB", threads=3, prefetch=3, **settings) as loader:
        for _ in range(5):
            next(iter(loader))
        for _ in range(2):
            assert equal(list(loader), expected)


def test_the_first_of_a_batch_keeps_an_image_that_comes_twice(keep_beton: Path) -> None:
    dataset = ResidentDataset(BetonDataset(keep_beton), np.arange(10))
    rows = np.array([3, 3, 15, 4])
    kept = dataset.claim(rows, np.array([True, True, True, False]))
    assert kept is not None and (kept.offsets >= 0).tolist() == [True, False, False, False]
    assert dataset.claim(rows[:1], np.array([True])) is None  # it is on its way
    dataset.settle(rows[:1], np.array([False]))
    assert dataset.claim(rows[:1], np.array([True])) is not None
    dataset.close()
