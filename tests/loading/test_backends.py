"""What every backend promises, and where the native one goes beyond it."""

import gc
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from fasttrain import Loader
from fasttrain.base.errors import ImageError, LoaderError
from fasttrain.kernels import loading
from fasttrain.loading import backend as backends
from fasttrain.loading.batch import Batch
from fasttrain.loading.host_memory import HostMemory
from fasttrain.loading.native import NativeBackend
from fasttrain.loading.optional import why_absent
from fasttrain.loading.views import View, eval_view, train_view

native_only = pytest.mark.skipif(not loading.loading_available(), reason="the native kernels were not built")
NO_DALI = why_absent("dali")
dali_only = pytest.mark.skipif(NO_DALI is not None, reason=str(NO_DALI))
BACKENDS = ["portable", pytest.param("native", marks=native_only), pytest.param("dali", marks=dali_only)]
each_backend = pytest.mark.parametrize("backend", BACKENDS)
each_keeping_backend = pytest.mark.parametrize("backend", BACKENDS[:2])  # decoded images, in memory
VIEWS: list[View] = [
    train_view(24),
    train_view(33, interpolation="bicubic", vflip=0.5),
    train_view(16, color_jitter=(0.4, 0.4, 0.4, 0.1)),
    eval_view(32),
    eval_view(20, crop_pct=0.6, anchor="bottom_right", hflip=True),
    eval_view(40, crop_mode="squash", interpolation="bilinear"),
]
TINY = eval_view(8)


def batches(data: Any, **options: Any) -> list[Batch]:
    with Loader(data, **{"batch_size": 6, "threads": 2, **options}) as loader:
        return list(loader)


def equal(one: list[Batch], other: list[Batch]) -> bool:
    pairs = zip(one, other, strict=True)
    return all(torch.equal(a, b) for ours, theirs in pairs for a, b in zip(ours, theirs, strict=True))


def psnr(ours: list[Batch], theirs: list[Batch]) -> float:
    """Of pixels in 0-1, over all batches."""
    pairs = zip(ours, theirs, strict=True)
    error = torch.cat([(one.images.double() - other.images.double()).square().flatten() for one, other in pairs])
    return float(-10 * torch.log10(error.mean() + 1e-12))


# --- the contract -----------------------------------------------------------------------------------------------------


@each_backend
@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("kind", ["keep_beton", "raw_beton", "photos", "joined"])
def test_plans_are_equal_and_pixels_agree(
    backend: str, view: View, kind: str, request: pytest.FixtureRequest, raw_beton: Path, photos: Path
) -> None:
    data = [raw_beton, photos] if kind == "joined" else request.getfixturevalue(kind)
    plain = view.model_copy(update={"mean": (0, 0, 0), "std": (1, 1, 1)})
    ours = batches(data, view=plain, backend=backend)
    theirs = batches(data, view=plain, backend="portable")
    for mine, reference in zip(ours, theirs, strict=True):
        assert mine.images.shape == reference.images.shape and mine.images.dtype == reference.images.dtype
        assert mine.images.is_contiguous(memory_format=torch.channels_last)
        assert all(torch.equal(a, b) for a, b in zip(mine[1:], reference[1:], strict=True))
        assert torch.equal(mine.images[~mine.valid], reference.images[~reference.valid])
    # These pictures are small and noisy, so that bicubic overshoot is clipped where Pillow does not.
    # DALI interpolates the chroma of a box's outermost pixels without their neighbours.
    least = 40 if view.interpolation == "bicubic" else 47 if backend == "dali" else 50
    assert psnr(ours, theirs) >= least


@each_backend
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_every_dtype(backend: str, dtype: torch.dtype, keep_beton: Path) -> None:
    ours = batches(keep_beton, view=eval_view(24), dtype=dtype, backend=backend)
    theirs = batches(keep_beton, view=eval_view(24), backend="portable")
    for mine, reference in zip(ours, theirs, strict=True):
        assert mine.images.dtype == dtype
        # A level is 0.018 wide; 0.03 is the error of bfloat16.
        assert (mine.images.float() - reference.images).abs().mean() < 0.01
        torch.testing.assert_close(
            mine.images[~mine.valid].float(), reference.images[~reference.valid], atol=0.01, rtol=0
        )


@each_backend
def test_evaluation_without_gradients(backend: str, keep_beton: Path, raw_beton: Path) -> None:
    with torch.inference_mode():
        ours = batches([keep_beton, raw_beton], view=TINY, backend=backend)
    assert equal(ours, batches([keep_beton, raw_beton], view=TINY, backend=backend))


@each_backend
@pytest.mark.parametrize("view", VIEWS[:3])
def test_bits_do_not_depend_on_threads_or_prefetch(backend: str, view: View, keep_beton: Path) -> None:
    expected = batches(keep_beton, view=view, backend=backend, threads=1)
    for threads, prefetch in ((2, 1), (4, 5)):
        assert equal(batches(keep_beton, view=view, backend=backend, threads=threads, prefetch=prefetch), expected)


@each_backend
def test_a_broken_image_is_raised_with_its_id_and_path(backend: str, broken_tree: Path) -> None:
    (broken_tree / "only/text.jpg").unlink()
    with Loader(broken_tree, 3, view=TINY, backend=backend) as loader:
        for _ in range(2):
            with pytest.raises(ImageError) as caught:
                list(loader)
            assert caught.value.sample_id == "only/cut.jpg"
            assert caught.value.path == str(broken_tree / "only/cut.jpg") and caught.value.reason


@each_backend
def test_broken_images_are_skipped_and_black(backend: str, broken_tree: Path) -> None:
    with Loader(broken_tree, 4, view=TINY, on_error="skip", backend=backend) as loader:
        for _ in range(2):
            found = list(loader)
        assert torch.cat([batch.valid for batch in found]).tolist() == [True] * 8 + [False] * 4
        black = torch.tensor([-m / s for m, s in zip(TINY.mean, TINY.std, strict=True)])
        torch.testing.assert_close(found[2].images, black[:, None, None].expand(4, 3, 8, 8))
        assert sorted(name for name, _ in loader.skipped) == ["only/cut.jpg", "only/text.jpg"]


def damaged_beton(keep_beton: Path, tmp_path: Path, share: float, row: int = 7) -> Path:
    """A copy whose image in `row` has a hole, at that share of its bytes."""
    path = tmp_path / "hole.beton"
    shutil.copy(keep_beton, path)
    from fasttrain.beton_build.reader import BetonReader

    with BetonReader(path) as reader:
        start, size = int(reader.offsets[row]), int(reader.sizes[row])
    with path.open("r+b") as file:
        file.seek(start + int(size * share))
        file.write(b"\xff\xd9" * 20)
    return path


# Pillow and DALI bridge a hole in the middle with grey.
@pytest.mark.parametrize(
    ("backend", "share"),
    [
        ("portable", 0),
        pytest.param("dali", 0, marks=dali_only),
        *(pytest.param("native", share, marks=native_only) for share in (0, 0.5)),
    ],
)
def test_damage_in_a_beton(backend: str, share: float, keep_beton: Path, tmp_path: Path) -> None:
    path = damaged_beton(keep_beton, tmp_path, share)
    with Loader(path, 5, view=TINY, on_error="skip", backend=backend) as loader:
        valid = torch.cat([batch.valid for batch in loader])
        assert torch.nonzero(~valid).flatten().tolist() == [7]
        assert [name for name, _ in loader.skipped] == ["cat/7.jpg"]
    with Loader(path, 5, view=TINY, backend=backend) as loader, pytest.raises(ImageError, match=r"hole\.beton\[7\]"):
        list(loader)


@pytest.mark.parametrize("second", BACKENDS)
@each_backend
def test_a_state_of_one_backend_is_good_for_another(backend: str, second: str, keep_beton: Path) -> None:
    with Loader(keep_beton, 5, view=train_view(8), backend=backend) as loader:
        whole = [batch.ids.tolist() for batch in loader]
        loader.set_epoch(0)
        passing = iter(loader)
        next(passing), next(passing)
        state = loader.state_dict()
    with Loader(keep_beton, 5, view=train_view(8), backend=second) as loader:
        loader.load_state_dict(state)
        assert [batch.ids.tolist() for batch in loader] == whole[2:]


@each_backend
def test_batches_outlive_their_loader_and_each_other(backend: str, raw_beton: Path) -> None:
    """Memory is used again, but never that of a batch which somebody still holds, or a part of it."""
    expected = batches(raw_beton, view=TINY, batch_size=2, backend=backend)
    with Loader(raw_beton, 2, view=TINY, backend=backend) as loader:
        whole = [batch.images for batch in loader]
        loader.set_epoch(0)
        parts = [batch.images[1, :, 2:5] for batch in loader]
        for _ in range(4):
            for batch in loader:
                batch.images.zero_()
    gc.collect()
    for index, batch in enumerate(expected):
        assert torch.equal(whole[index], batch.images) and torch.equal(parts[index], batch.images[1, :, 2:5])


@each_backend
def test_closing_in_the_middle(backend: str, keep_beton: Path) -> None:
    for steps in range(4):
        loader = Loader(keep_beton, 2, view=train_view(64), threads=3, prefetch=4, backend=backend)
        passing = iter(loader)
        for _ in range(steps):
            next(passing)
        loader.close()
        with pytest.raises(LoaderError, match="closed"):
            next(passing)
        loader.close()


@each_backend
def test_leaving_passes_and_loaders_behind(backend: str, keep_beton: Path) -> None:
    for _ in range(10):
        loader = Loader(keep_beton, 4, view=train_view(32), threads=2, prefetch=3, backend=backend)
        for _ in range(5):
            next(iter(loader))
        passing = iter(loader)
        next(passing)
        del loader, passing
    gc.collect()


@each_backend
def test_several_loaders_in_several_threads(backend: str, keep_beton: Path) -> None:
    expected, found = batches(keep_beton, view=TINY, backend=backend), {}

    def work(number: int) -> None:
        found[number] = [batches(keep_beton, view=TINY, backend=backend) for _ in range(3)]

    workers = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert len(found) == 4 and all(equal(one, expected) for several in found.values() for one in several)


# --- which backend ----------------------------------------------------------------------------------------------------


def test_auto_takes_what_there_is(keep_beton: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Loader(keep_beton, 5, view=TINY) as loader:
        assert isinstance(loader._backend, NativeBackend) == loading.loading_available()
    monkeypatch.setattr(loading, "_native", None)
    with Loader(keep_beton, 5, view=TINY) as loader:
        assert not isinstance(loader._backend, NativeBackend)
        assert len(list(loader)) == 4
    with pytest.raises(LoaderError, match="native loader backend was not built; install a C"):
        Loader(keep_beton, 5, view=TINY, backend="native")
    assert list(backends.BACKENDS) == ["native", "portable", "dali", "ffcv"]


# --- memory -----------------------------------------------------------------------------------------------------------


def test_host_memory_is_used_again_when_nobody_holds_it() -> None:
    memory = HostMemory()
    first = memory.empty((2, 8, 8, 3), torch.float32)
    address, part = first.data_ptr(), first.permute(0, 3, 1, 2)[1]
    del first
    assert memory.empty((2, 8, 8, 3), torch.float32).data_ptr() != address  # a part of it is held
    del part
    kept = [memory.empty((2, 8, 8, 3), torch.float32) for _ in range(4)]
    assert address in {tensor.data_ptr() for tensor in kept}
    assert len({tensor.data_ptr() for tensor in kept}) == 4
    assert memory.empty((1, 2, 2, 3), torch.bfloat16).shape == (1, 2, 2, 3)
