"""What the DALI backend does beyond the contract of all of them: quality, odd files, broken neighbours, its errors."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from fasttrain import Loader
from fasttrain.base.errors import ImageError, LoaderError
from fasttrain.loading.optional import why_absent
from fasttrain.loading.views import View, eval_view, train_view

from .conftest import picture
from .test_backends import batches, psnr
from .test_native import odd_images

if (_missing := why_absent("dali")) is not None and not os.environ.get("FASTTRAIN_REQUIRE_DALI"):
    pytest.skip(_missing, allow_module_level=True)

from fasttrain.loading.dali import DaliBackend
from fasttrain.loading.dali_pipeline import DaliPipeline

TINY = eval_view(8)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight pictures of the size of photos, two of them with half the chroma, one grey."""
    folder = tmp_path_factory.mktemp("large")
    for index in range(8):
        image = picture(400 + 31 * index, 380 - 17 * index, index)
        kind: dict[str, Any] = {"subsampling": "4:2:0" if index < 2 else "4:4:4", "progressive": index == 5}
        (image.convert("L") if index == 7 else image).save(folder / f"{index}.jpg", quality=85, **kind)
    return folder


# 1 dB below what was measured.
@pytest.mark.parametrize(
    ("view", "mean", "worst"),
    [
        (train_view(224), 56.3, 54),
        (train_view(96, vflip=0.5, interpolation="bicubic"), 54.3, 53.2),
        (eval_view(224), 54.1, 53.6),
    ],
)
def test_pixels_are_pillows(large: Path, view: View, mean: float, worst: float) -> None:
    plain = view.model_copy(update={"mean": (0, 0, 0), "std": (1, 1, 1)})
    pairs = [batches(large, view=plain, batch_size=8, backend=name)[0].images for name in ("dali", "portable")]
    each = -10 * torch.log10((pairs[0] - pairs[1]).double().square().mean((1, 2, 3)))
    assert each.mean() >= mean and each.min() >= worst, each


def test_odd_files_go_the_portable_way(tmp_path: Path) -> None:
    folder = odd_images(tmp_path)
    ours, theirs = (batches(folder, view=eval_view(24), backend=name) for name in ("dali", "portable"))
    assert psnr(ours, theirs) > 35  # of normalised pixels, whose range is fivefold
    with Loader(folder, 11, view=TINY, backend="dali") as loader:
        assert isinstance(loader._backend, DaliBackend)
        for times in (1, 2):
            list(loader)
            assert loader._backend.handed_over == 5 * times  # 4.png, 5 turned, 7 CMYK, 8 and 9 by wrong names


def test_stored_pixels_go_the_portable_way(raw_beton: Path) -> None:
    ours, theirs = (batches(raw_beton, view=TINY, backend=name) for name in ("dali", "portable"))
    for mine, reference in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine.images, reference.images, rtol=0, atol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 2, 10])
def test_neighbours_of_broken_images_are_as_ever(broken_tree: Path, batch_size: int) -> None:
    options: dict[str, Any] = {"view": train_view(8), "order": "sequential", "backend": "dali", "on_error": "skip"}
    found = batches(broken_tree, batch_size=batch_size, **options)
    for name in ("cut.jpg", "text.jpg"):
        (broken_tree / "only" / name).unlink()
    whole = batches(broken_tree, batch_size=8, **options)[0]
    ids, images = (torch.cat([getattr(batch, name)[batch.valid] for batch in found]) for name in ("ids", "images"))
    assert ids.tolist() == whole.ids.tolist()
    assert torch.equal(images, whole.images)


def test_a_batch_of_nothing_but_broken_images(broken_tree: Path) -> None:
    for index in range(8):
        path = broken_tree / "only" / f"{index}.jpg"
        path.write_bytes(path.read_bytes()[:-200])
    (broken_tree / "only/text.jpg").unlink()
    with Loader(broken_tree, 9, view=TINY, backend="dali") as loader, pytest.raises(ImageError):
        list(loader)
    assert not any(batch.valid.any() for batch in batches(broken_tree, view=TINY, backend="dali", on_error="skip"))


def test_a_fault_of_dali_is_not_laid_on_the_images(keep_beton: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(DaliPipeline, "outputs", fail)
    with Loader(keep_beton, 5, view=TINY, backend="dali") as loader:
        for _ in range(2):
            with pytest.raises(LoaderError, match=r"thread failed on sample .*out of memory"):
                list(loader)


def test_what_dali_refuses_and_pillow_takes(keep_beton: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One such image does not end the run, and is not tried again."""
    refused, start = 7, DaliPipeline.start
    tries = []

    def start_unless_refused(self: DaliPipeline, streams: Any, plan: Any, positions: Any) -> None:
        if refused in plan.rows[positions]:
            tries.append(len(positions))
            raise RuntimeError("unsupported")
        start(self, streams, plan, positions)

    expected = batches(keep_beton, view=TINY, backend="portable")
    monkeypatch.setattr(DaliPipeline, "start", start_unless_refused)
    with Loader(keep_beton, 6, view=TINY, backend="dali") as loader:
        for _ in range(2):
            assert psnr(list(loader), expected) > 35
    assert tries == [6, 1]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("view", [train_view(64), train_view(64, color_jitter=0.4), eval_view(64)])
def test_the_gpu_decodes(large: Path, odd_tree: Path, view: View) -> None:
    for folder in (large, odd_tree):
        ours = batches(folder, view=view, backend="dali", device="cuda")
        theirs = batches(folder, view=view, backend="portable")
        assert all(batch.images.is_cuda for batch in ours)
        assert psnr([type(batch)(*(part.cpu() for part in batch)) for batch in ours], theirs) > 25


@pytest.fixture
def odd_tree(tmp_path: Path) -> Path:
    """Files that go the portable way, among others."""
    return odd_images(tmp_path)


def test_decoded_images_are_not_kept(keep_beton: Path) -> None:
    with pytest.raises(LoaderError, match="keeps no decoded images; leave memory_budget out"):
        Loader(keep_beton, 5, view=TINY, backend="dali", memory_budget="1GB")


def test_a_failure_on_the_way_is_that_of_its_batch(keep_beton: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy, calls = DaliBackend._copy, []

    def fail_once(self: DaliBackend, *arguments: Any) -> None:
        calls.append(arguments)
        if len(calls) == 2:
            raise ValueError("no room")
        copy(self, *arguments)

    monkeypatch.setattr(DaliBackend, "_copy", fail_once)
    with Loader(keep_beton, 5, view=TINY, backend="dali") as loader:
        passing = iter(loader)
        assert next(passing).valid.all()
        with pytest.raises(LoaderError, match="no room"):
            next(passing)
        assert len(list(loader)) == 4
