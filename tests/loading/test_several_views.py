"""`Loader(views=k)`: several views of each sample from one decoding."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fasttrain import Loader
from fasttrain.base.errors import LoaderError
from fasttrain.beton_build.build import build
from fasttrain.beton_build.options import BuildOptions
from fasttrain.beton_build.sources import read_source
from fasttrain.loading.open_dataset import BetonDataset
from fasttrain.loading.randomness import Operation, repeated_keys
from fasttrain.loading.views import View, eval_view, train_view

from .conftest import picture
from .test_backends import batches, each_backend, psnr
from .test_native import odd_images

VIEWS: list[View] = [
    train_view(24),
    train_view(17, color_jitter=(0.4, 0.4, 0.4, 0.1), vflip=0.5, interpolation="bicubic"),
]


@each_backend
@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("kind", ["keep_beton", "raw_beton", "photos"])
def test_the_first_view_is_that_of_a_single_one(
    backend: str, view: View, kind: str, request: pytest.FixtureRequest
) -> None:
    data = request.getfixturevalue(kind)
    several = batches(data, view=view, backend=backend, views=3)
    single = batches(data, view=view, backend=backend)
    reference = batches(data, view=view, backend="portable", views=3)
    for many, one, other in zip(several, single, reference, strict=True):
        assert many.images.shape == (3, *one.images.shape)
        assert torch.equal(many.images[0], one.images)
        assert all(torch.equal(a, b) for a, b in zip(many[1:], one[1:], strict=True))
        assert all(images.is_contiguous(memory_format=torch.channels_last) for images in many.images)
        apart = (many.images[1:] - many.images[:1]).abs().mean((2, 3, 4))
        assert (apart > 0.01).all() and not torch.equal(many.images[1], many.images[2])
        assert (many.images - other.images).abs().mean() < 0.02
    assert psnr(several, reference) > 35  # of values with a standard deviation of 1


@each_backend
def test_views_are_planned_by_the_sample_alone(backend: str, keep_beton: Path) -> None:
    """Each is the view of a sample whose key is drawn from the sample's own and the number of the view."""
    with Loader(keep_beton, 20, view=VIEWS[0], backend=backend, views=3, order="sequential") as loader:
        images = next(iter(loader)).images
    dataset = BetonDataset(keep_beton)
    for number in range(3):
        keys = repeated_keys(dataset.keys, np.full(20, number), Operation.VIEW_KEY)
        with Loader(keep_beton, 20, view=VIEWS[0], backend=backend, order="sequential") as loader:
            loader.dataset.keys = keys
            assert torch.equal(next(iter(loader)).images, images[number])
    dataset.close()


@each_backend
def test_wide_and_subsampled_photos(backend: str, tmp_path: Path) -> None:
    """Boxes far apart in one pass over the rows; what a view shows does not depend on the others."""
    (tmp_path / "in/a").mkdir(parents=True)
    for index, subsampling in enumerate((0, 1, 2, 2)):
        picture(700 - 131 * index, 300 + 170 * index, index).save(
            tmp_path / f"in/a/{index}.jpg", subsampling=subsampling, progressive=index == 3
        )
    build(read_source(tmp_path / "in"), tmp_path / "a.beton", BuildOptions(workers=1))
    view = train_view(64, scale=(0.01, 1.0))
    for decode in ("exact", "fast"):
        settings = {"view": view, "batch_size": 4, "backend": backend, "order": "sequential"}
        many = batches(tmp_path / "a.beton", views=6, decode=decode, **settings)[0].images
        one = batches(tmp_path / "a.beton", decode=decode, **settings)[0].images
        reference = batches(tmp_path / "a.beton", views=6, **{**settings, "backend": "portable"})[0].images
        if decode == "exact":
            assert torch.equal(many[0], one)
        assert (many - reference).abs().mean() < (0.02 if decode == "exact" else 0.2)


@each_backend
def test_a_broken_image_is_black_in_every_view(backend: str, broken_tree: Path) -> None:
    with Loader(broken_tree, 5, view=VIEWS[0], on_error="skip", backend=backend, views=2, order="sequential") as loader:
        images, _, _, valid = zip(*loader, strict=True)
    black = torch.tensor([-m / s for m, s in zip(VIEWS[0].mean, VIEWS[0].std, strict=True)])[:, None, None]
    together, good = torch.cat(images, 1), torch.cat(valid)
    assert good.sum() == 8 and good.tolist() == [True] * 8 + [False] * 2
    torch.testing.assert_close(together[:, ~good], black.expand(2, 2, 3, 24, 24))
    assert (together[:, good] - black).abs().mean((2, 3, 4)).min() > 0.01


@each_backend
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_images_that_only_pillow_decodes(backend: str, dtype: torch.dtype, tmp_path: Path) -> None:
    root = odd_images(tmp_path)
    settings = {"view": VIEWS[0], "batch_size": 4, "views": 2, "dtype": dtype}
    for mine, reference in zip(
        batches(root, backend=backend, **settings), batches(root, backend="portable", **settings), strict=True
    ):
        assert (mine.images.float() - reference.images.float()).abs().mean() < 0.02


def test_an_image_is_decoded_once_for_all_views(keep_beton: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decode, rows = BetonDataset.decode, []
    monkeypatch.setattr(BetonDataset, "decode", lambda self, row: rows.append(row) or decode(self, row))
    batches(keep_beton, view=VIEWS[0], batch_size=5, backend="portable", views=4)
    assert sorted(rows) == list(range(20))


def test_views_that_cannot_be(keep_beton: Path) -> None:
    with pytest.raises(LoaderError, match="an eval view is the same each time"):
        Loader(keep_beton, 4, view=eval_view(8), views=2)
    with pytest.raises(LoaderError, match="views must be at least 1, not 0"):
        Loader(keep_beton, 4, views=0)
