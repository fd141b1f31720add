"""WebDataset archives through DALI's own reader."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from fasttrain import Loader
from fasttrain.base.errors import LoaderError
from fasttrain.beton_build.build import build
from fasttrain.beton_build.options import BuildOptions
from fasttrain.beton_build.sources import read_source
from fasttrain.loading import optional
from fasttrain.loading.batch import Batch
from fasttrain.loading.dali_tars import DaliTars
from fasttrain.loading.optional import why_absent
from fasttrain.loading.views import EvalView, eval_view, train_view

from .test_backends import equal, psnr

if (_missing := why_absent("dali")) is not None and not os.environ.get("FASTTRAIN_REQUIRE_DALI"):
    pytest.skip(_missing, allow_module_level=True)

TINY = eval_view(8)


@pytest.fixture(scope="module")
def tars(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`photos` in three archives."""
    out = tmp_path_factory.mktemp("tars") / "photos"
    options = BuildOptions.model_validate({"mode": "keep", "workers": 1, "format": "webdataset", "tar_bytes": 40_000})
    build(read_source(photos), out, options)
    return out


def ids_of(batches: list[Batch]) -> list[int]:
    return [int(row) for batch in batches for row in batch.ids[batch.valid]]


@pytest.mark.parametrize(
    "view",
    [
        eval_view(32),
        eval_view(20, crop_pct=0.6, anchor="bottom_right", hflip=True),
        eval_view(40, crop_mode="squash", interpolation="bilinear"),
    ],
)
def test_evaluation_is_the_loaders(tars: Path, view: EvalView) -> None:
    plain = view.model_copy(update={"mean": (0, 0, 0), "std": (1, 1, 1)})
    with DaliTars(tars, 6, view=plain, threads=2) as source, Loader(tars, 6, view=plain) as loader:
        assert source.class_names == ["cat", "dog"] and source.num_samples == 20
        theirs = list(loader)
        for _ in range(2):
            ours = list(source)
            assert len(ours) == len(source) == 4
            for mine, reference in zip(ours, theirs, strict=True):
                assert mine.images.shape == reference.images.shape
                assert mine.images.is_contiguous(memory_format=torch.channels_last)
                assert all(torch.equal(a, b) for a, b in zip(mine[1:], reference[1:], strict=True))
            whole = [[batch._replace(images=batch.images[batch.valid]) for batch in some] for some in (ours, theirs)]
            assert psnr(*whole) > 40


def test_training_is_dalis(tars: Path) -> None:
    view = train_view(16, vflip=0.5)
    with DaliTars(tars, 6, view=view, seed=5, threads=2, dtype=torch.bfloat16) as source:
        epochs = [list(source) for _ in range(4)]
    assert all(len(batches) == len(source) == 3 for batches in epochs)
    assert all(batch.valid.all() and batch.images.dtype == torch.bfloat16 for batch in epochs[0])
    assert len({tuple(ids_of(batches)) for batches in epochs}) == 4
    assert all(ids_of(epochs[0]).count(row) <= 1 for row in range(20))
    for batches in epochs:
        assert all(torch.equal(batch.labels, (batch.ids >= 10).long()) for batch in batches)
    with DaliTars(tars, 6, view=view, seed=5, threads=1, dtype=torch.bfloat16) as source:
        again = list(source)
    assert equal(epochs[0], again)


def test_ranks_see_each_sample_once(tars: Path) -> None:
    parts = [list(DaliTars(tars, 4, view=TINY, threads=1, rank=rank, world=3)) for rank in range(3)]
    assert len({len(part) for part in parts}) == 1
    assert [row for part in parts for row in ids_of(part)] == list(range(20))


def test_a_pass_that_is_left_half_way_begins_anew(tars: Path) -> None:
    with DaliTars(tars, 6, view=TINY, threads=1) as source:
        next(iter(source))
        assert ids_of(list(source)) == list(range(20))


def test_batches_outlive_each_other(tars: Path) -> None:
    with DaliTars(tars, 2, view=TINY, threads=1) as source:
        kept = list(source)
        copies = [batch.images.clone() for batch in kept]
        list(source)
    assert all(torch.equal(batch.images, copy) for batch, copy in zip(kept, copies, strict=True))


def test_a_broken_image_is_a_sentence(tars: Path, tmp_path: Path) -> None:
    tar = tmp_path / "broken.tar"
    data = bytearray((tars / "shard-000000.tar").read_bytes())
    data[512 + 20 : 512 + 400] = bytes(380)
    tar.write_bytes(data)
    tar.with_suffix(".idx").write_text((tars / "shard-000000.idx").read_text())
    with DaliTars(tar, 4, view=TINY, threads=1) as source, pytest.raises(LoaderError, match="DALI cannot go on with"):
        list(source)


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda tar: tar.with_suffix(".idx").unlink(), {}, "has no index; wds2idx"),
        (lambda tar: tar.with_suffix(".idx").write_text("v1.2 1\ntxt 512 3 a.txt\n"), {}, "is no index of images"),
        (lambda tar: tar.unlink(), {}, "neither an archive nor a folder"),
        (lambda tar: None, {"batch_size": 30, "view": train_view(8)}, "use a smaller batch size"),
        (lambda tar: None, {"view": train_view(8, color_jitter=0.1)}, "no colour jitter"),
        (lambda tar: None, {"view": train_view(8, augment={"grey": 0.1})}, "no augmentation"),
        (lambda tar: None, {"dtype": torch.uint8}, "dtype must be a floating-point one"),
        (lambda tar: None, {"batch_size": 0}, "batch_size must be at least 1"),
    ],
)
def test_wrong_starts(tars: Path, tmp_path: Path, change: Any, options: Any, message: str) -> None:
    tar = tmp_path / "a.tar"
    tar.write_bytes((tars / "shard-000000.tar").read_bytes())
    tar.with_suffix(".idx").write_text((tars / "shard-000000.idx").read_text())
    change(tar)
    with pytest.raises(LoaderError, match=message):
        DaliTars(tar, **{"batch_size": 4, "view": TINY, **options})


def test_an_archive_that_is_none(keep_beton: Path) -> None:
    with pytest.raises(LoaderError, match="neither an archive nor a folder"):
        DaliTars(keep_beton, 4)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(tars: Path) -> None:
    with pytest.raises(LoaderError, match="torch finds no usable GPU; use device='cpu'"):
        DaliTars(tars, 4, device="cuda")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("view", [TINY, eval_view(64)])
def test_a_gpu_gives_what_a_cpu_gives(tars: Path, view: EvalView) -> None:
    """Though a batch is only read when DALI has long made others."""
    plain = view.model_copy(update={"mean": (0, 0, 0), "std": (1, 1, 1)})
    with DaliTars(tars, 2, view=plain, device="cuda") as source, DaliTars(tars, 2, view=plain) as reference:
        ours = []
        for batch in source:
            torch.cuda._sleep(50_000_000)
            ours.append(Batch(*(part.clone() for part in batch)))
        on_cpu = [Batch(*(part.cpu() for part in batch)) for batch in ours]
        theirs = list(reference)
    assert ids_of(on_cpu) == ids_of(theirs)
    assert psnr(on_cpu, theirs) > 35


def test_without_dali(tars: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optional, "_found", lambda module: False)
    with pytest.raises(LoaderError, match=r"needs NVIDIA DALI.*pip install"):
        DaliTars(tars, 4)
