"""`Loader(resident="gpu")`. Its backend works on any device, so that a CPU stands in for the GPU."""

from pathlib import Path

import pytest
import torch

from fasttrain import Loader
from fasttrain.base.errors import ImageError, LoaderError
from fasttrain.loading.backend import Circumstances, choose_backend
from fasttrain.loading.resident_backend import ResidentBackend
from fasttrain.loading.views import View, eval_view, train_view

from . import test_native
from .test_backends import TINY, VIEWS, batches, each_keeping_backend

CPU = torch.device("cpu")


def with_resident(loader: Loader, decoder: str = "auto") -> Loader:
    """The same loader, its images decoded by now."""
    loader._backend.close()
    made_for = Circumstances(loader.dataset, 2, loader.view, None)
    loader._backend = ResidentBackend(made_for, loader._rows, CPU, choose_backend(decoder, "exact"))
    return loader


@each_keeping_backend
@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("kind", ["keep_beton", "raw_beton", "photos", "joined"])
def test_views_are_those_of_every_backend(
    backend: str, view: View, kind: str, request: pytest.FixtureRequest, raw_beton: Path, photos: Path
) -> None:
    data = [raw_beton, photos] if kind == "joined" else request.getfixturevalue(kind)
    with with_resident(Loader(data, 6, view=view, views=1), backend) as loader:
        ours = list(loader)
    for mine, reference in zip(ours, batches(data, view=view, backend="portable"), strict=True):
        assert mine.images.is_contiguous(memory_format=torch.channels_last)
        assert all(torch.equal(a, b) for a, b in zip(mine[1:], reference[1:], strict=True))
        assert (mine.images - reference.images).abs().mean() < 0.02
        assert torch.equal(mine.images[~mine.valid], reference.images[~reference.valid])


def test_part_of_a_data_set_in_several_views_and_chunks(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fasttrain.loading.resident_backend._CHUNK", 20_000)
    settings = {"view": train_view(24), "views": 2, "indices": [19, 3, 4, 11, 12, 0]}
    with with_resident(Loader(photos, 3, **settings)) as loader:
        ours = [list(loader) for _ in range(2)]
    with Loader(photos, 3, **settings) as loader:
        for epoch in ours:
            for mine, reference in zip(epoch, loader, strict=True):
                assert mine.images.shape == (2, 3, 3, 24, 24) and torch.equal(mine.ids, reference.ids)
                assert (mine.images - reference.images).abs().mean() < 0.02


def test_nothing_is_read_any_more(tmp_path: Path) -> None:
    root = test_native.odd_images(tmp_path)
    with with_resident(Loader(root, 4, view=eval_view(16))) as loader:
        expected = [batch.images for batch in loader]
        for path in root.rglob("*.*"):
            path.unlink()
        assert all(torch.equal(batch.images, images) for batch, images in zip(loader, expected, strict=True))


def test_broken_images(broken_tree: Path) -> None:
    settings = {"view": TINY, "on_error": "skip"}
    with with_resident(Loader(broken_tree, 4, **settings)) as loader:
        for mine, reference in zip(loader, batches(broken_tree, batch_size=4, **settings), strict=True):
            assert torch.equal(mine.valid, reference.valid)
            torch.testing.assert_close(mine.images[~mine.valid], reference.images[~reference.valid])
        assert sorted(name for name, _ in loader.skipped) == ["only/cut.jpg", "only/text.jpg"]
    (broken_tree / "only/text.jpg").unlink()
    with with_resident(Loader(broken_tree, 3, view=TINY)) as loader, pytest.raises(ImageError, match=r"cut\.jpg"):
        list(loader)


def test_what_does_not_go_together(keep_beton: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LoaderError, match=r"needs device='cuda'; to keep decoded images on the CPU, use memory_budget"):
        Loader(keep_beton, 4, resident="gpu")
    with pytest.raises(LoaderError, match="leave memory_budget out"):
        Loader(keep_beton, 4, resident="gpu", device="cuda", memory_budget="1GB")
    with pytest.raises(LoaderError, match="must be 'gpu' or None, not 'disk'"):
        Loader(keep_beton, 4, resident="disk")  # type: ignore[arg-type]
    monkeypatch.setattr("fasttrain.base.process.available_memory", lambda: 100)
    with pytest.raises(LoaderError, match=r"the 20 images of .* take 2.* KB, but cpu has 100 bytes free"):
        with_resident(Loader(keep_beton, 4))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
def test_on_a_gpu(keep_beton: Path) -> None:
    settings = {"view": train_view(32, color_jitter=0.3), "device": "cuda"}
    with Loader(keep_beton, 5, resident="gpu", **settings) as resident, Loader(keep_beton, 5, **settings) as plain:
        for mine, reference in zip(resident, plain, strict=True):
            assert torch.equal(mine.ids, reference.ids)
            assert (mine.images - reference.images).abs().mean() < 0.02
