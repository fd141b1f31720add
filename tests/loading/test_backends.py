"""What every backend promises, and where the native one goes beyond it."""

import gc
import os
import shutil
import subprocess
import sys
import tarfile
import threading
import time
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fasttrain import Loader
from fasttrain.base.errors import BetonError, ImageError, LoaderError
from fasttrain.kernels import loading
from fasttrain.kernels.loading import (
    DONE,
    FAILED,
    JPEG,
    JPEG_FILE,
    NOT_HANDLED,
    BatchPool,
    Geometry,
    PixelFormat,
    Sources,
    stored_elsewhere,
)
from fasttrain.loading import backend as backends
from fasttrain.loading.batch import Batch
from fasttrain.loading.host_memory import HostMemory
from fasttrain.loading.native import NativeBackend
from fasttrain.loading.views import View, eval_view, train_view

from .conftest import picture

native_only = pytest.mark.skipif(not loading.loading_available(), reason="the native kernels were not built")
BACKENDS = ["portable", pytest.param("native", marks=native_only)]
each_backend = pytest.mark.parametrize("backend", BACKENDS)
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
    assert psnr(ours, theirs) >= (50 if view.interpolation == "bilinear" else 40)


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


# Pillow bridges a hole in the middle with grey.
@pytest.mark.parametrize(
    ("backend", "share"), [("portable", 0), *(pytest.param("native", s, marks=native_only) for s in (0, 0.5))]
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
    assert set(backends.BACKENDS) == {"native", "portable"}


# --- the native backend -----------------------------------------------------------------------------------------------


def odd_images(root: Path) -> Path:
    """Ordinary JPEG files among others: PNG, a turned photo, CMYK, a JPEG by a wrong name and the other way round."""
    folder = root / "odd"
    folder.mkdir(parents=True)
    for index in range(4):
        picture(50 + index, 40, index).save(folder / f"{index}.jpg")
    picture(60, 50, 4).save(folder / "4.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(70, 40, 5).save(folder / "5.jpg", exif=exif)
    exif[0x0112] = 1
    picture(70, 40, 6).save(folder / "6.jpg", exif=exif)
    picture(44, 48, 7).convert("CMYK").save(folder / "7.jpg")
    picture(44, 48, 8).save(folder / "8.jpg", format="PNG")
    picture(44, 48, 9).save(folder / "9.png", format="JPEG")
    picture(44, 48, 10).convert("L").save(folder / "a.JPEG")
    return root


@native_only
def test_odd_images_go_the_portable_way(tmp_path: Path) -> None:
    root = odd_images(tmp_path)
    for options in ({}, {"dtype": torch.float16}, {"view": train_view(20, color_jitter=0.3)}):
        settings: dict[str, Any] = {"view": eval_view(30, interpolation="bilinear"), "batch_size": 4, **options}
        theirs = batches(root, backend="portable", **settings)
        with Loader(root, backend="native", threads=2, **settings) as loader:
            for _ in range(2):
                loader.set_epoch(0)
                ours = list(loader)
                for mine, reference in zip(ours, theirs, strict=True):
                    assert torch.equal(mine.valid, reference.valid)
                    assert (mine.images.float() - reference.images.float()).abs().mean() < 0.02
            assert loader._backend.handed_over == 2 * sum(  # type: ignore[attr-defined]
                (row in (4, 5, 7, 8, 9)) for batch in ours for row in batch.ids.tolist()
            )


@native_only
def test_images_in_tar_archives(photos: Path, tmp_path: Path) -> None:
    archive = tmp_path / "photos.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(photos / "cat", "cat")
        tar.add(photos / "dog", "dog")
    ours = batches(archive, view=TINY, backend="native")
    theirs = batches(photos, view=TINY, backend="native")
    assert all(torch.equal(a.images, b.images) for a, b in zip(ours, theirs, strict=True))


@native_only
def test_a_file_that_vanishes_or_changes_is_an_image_error(tmp_path: Path) -> None:
    folder = tmp_path / "only"
    folder.mkdir()
    for index in range(4):
        picture(40, 36, index).save(folder / f"{index}.jpg")
    with Loader(tmp_path, 4, view=TINY, backend="native", on_error="skip") as loader:
        assert next(iter(loader)).valid.all()
        (folder / "1.jpg").unlink()
        picture(41, 36, 2).save(folder / "2.jpg")
        assert next(iter(loader)).valid.tolist() == [True, False, False, True]
        assert any("was 40x36 before" in reason for _, reason in loader.skipped)


@native_only
def test_fast_decoding_is_near_the_exact_one(tmp_path: Path) -> None:
    folder = tmp_path / "only"
    folder.mkdir()
    for index in range(4):
        picture(100, 80, index).resize((600, 500), Image.Resampling.BICUBIC).save(folder / f"{index}.jpg")
    plain = eval_view(48, interpolation="bilinear", mean=(0, 0, 0), std=(1, 1, 1))
    exact = batches(tmp_path, view=plain, backend="native", batch_size=4)
    fast = batches(tmp_path, view=plain, backend="native", batch_size=4, decode="fast")
    assert 30 < psnr(fast, exact) < 90


@native_only
def test_a_forked_child_is_told_to_make_its_own(keep_beton: Path) -> None:
    script = f"""
import os
from fasttrain import Loader
from fasttrain.loading.views import eval_view
loader = Loader({str(keep_beton)!r}, 5, view=eval_view(8), backend="native")
passing = iter(loader)
next(passing)
child = os.fork()
if child == 0:
    try:
        next(passing)
        list(loader)
    except RuntimeError as error:
        del loader, passing
        os._exit(7 if "fork" in str(error) else 1)
    os._exit(2)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
assert len(list(loader)) == 4
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", script], check=True, timeout=60)


@native_only
def test_a_process_ends_with_loaders_at_work(keep_beton: Path) -> None:
    script = f"""
from fasttrain import Loader
from fasttrain.loading.views import train_view
loader = Loader({str(keep_beton)!r}, 5, view=train_view(224), backend="native", prefetch=3)
passing = iter(loader)
next(passing)
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


@native_only
def test_cancelled_and_forgotten_batches_are_not_written_to(keep_beton: Path) -> None:
    pool = BatchPool(2)
    stream = BytesIO()
    picture(600, 600, 0).save(stream, "JPEG")
    count, zeros = 40, np.zeros(40, np.int64)
    none = np.zeros(count, bool)
    geometry = Geometry(
        np.tile([0, 0, 600, 600], (count, 1)), np.full((count, 2), 8), np.zeros((count, 2)), none, none, "bilinear"
    )
    sources = Sources(
        np.full(count, JPEG, np.uint8), [stream.getvalue()], zeros, zeros, np.full(count, len(stream.getvalue())),
        [None] * count, np.full((count, 2), 600),
    )  # fmt: skip
    out = np.zeros((count, 8, 8, 3), np.uint8)
    filling = pool.submit(sources, geometry, out, PixelFormat())
    assert not filling.wait(0)
    with pytest.raises(RuntimeError, match="still being filled"):
        filling.outcomes()
    filling.cancel()
    before = out.copy()
    assert filling.wait(0) and not before[-1].any()
    forgotten = pool.submit(sources, geometry, out, PixelFormat())
    del forgotten
    before = out.copy()
    time.sleep(0.05)
    assert np.array_equal(out, before)
    last = pool.submit(sources, geometry, out, PixelFormat())
    pool.close()
    assert last.wait() and out[0].any() is not None
    with pytest.raises(RuntimeError, match="closed"):
        pool.submit(sources, geometry, out, PixelFormat())


@native_only
@pytest.mark.parametrize(
    "changed",
    [
        {"stored": np.zeros(3, np.uint8)},
        {"paths": [None]},
        {"sizes": np.ones((2, 3), np.int64)},
        {"buffers": [np.zeros((4, 4), np.float32)]},
    ],
)
def test_arrays_that_do_not_fit_are_refused(changed: dict[str, Any]) -> None:
    pool, none = BatchPool(1), np.zeros(2, bool)
    geometry = Geometry(np.ones((2, 4)), np.ones((2, 2)), np.zeros((2, 2)), none, none, "bilinear")
    with pytest.raises(ValueError):
        sources = Sources(**{**stored_elsewhere(2).__dict__, **changed})
        pool.submit(sources, geometry, np.zeros((2, 4, 4, 3), np.uint8), PixelFormat())
    for out in (np.zeros((2, 4, 5, 3), np.uint8), np.zeros((2, 4, 4, 3)), np.zeros((2, 4, 4, 6), np.uint8)[..., ::2]):
        with pytest.raises(ValueError, match="out must be"):
            pool.submit(stored_elsewhere(2), geometry, out, PixelFormat())
    pool.close()


# --- hostile bytes ----------------------------------------------------------------------------------------------------


def mutated(stream: bytes, generator: np.random.Generator) -> bytes:
    """Bytes changed, cut out, doubled or cut off; mostly a few, sometimes many."""
    data = bytearray(stream)
    for _ in range(int(generator.integers(1, 4)) ** 2):
        at, kind = int(generator.integers(2, len(data))), int(generator.integers(6))
        if kind <= 2:
            data[at] = int(generator.integers(256))
        elif kind == 3:
            data[at : at + int(generator.integers(1, 40))] = b""
        elif kind == 4:
            data[at:at] = data[max(at - 30, 0) : at]
        else:
            data[at : at + 2] = bytes([0xFF, int(generator.integers(0xC0, 0xFF))])
        if len(data) < 10:
            break
    return bytes(data)


@native_only
def test_500_mutated_jpegs_give_pixels_or_an_error(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    originals = []
    kinds: list[dict[str, Any]] = [{}, {"subsampling": "4:4:4"}, {"progressive": True}, {"restart_marker_blocks": 2}]
    exif = Image.Exif()
    exif[0x0112] = 1
    for index, options in enumerate([*kinds, {"exif": exif}]):
        stream = BytesIO()
        picture(90, 70, index).save(stream, "JPEG", **options)
        originals.append(stream.getvalue())
    count = 500
    streams = [mutated(originals[index % len(originals)], generator) for index in range(count)]
    starts = np.cumsum([0, *(len(stream) for stream in streams)])
    boxes = np.stack([generator.integers(0, 30, count), generator.integers(0, 30, count), *np.full((2, count), 40)], 1)
    flips = generator.random(count) < 0.5
    geometry = Geometry(boxes, np.full((count, 2), 20), np.zeros((count, 2)), flips, flips, "bicubic")
    sources = Sources(
        np.full(count, JPEG, np.uint8), [b"".join(streams)], np.zeros(count, np.int64), starts[:-1], np.diff(starts),
        [None] * count, np.tile([90, 70], (count, 1)),
    )  # fmt: skip
    paths: list[bytes | None] = []
    for index, stream in enumerate(streams):
        (tmp_path / f"{index}.jpg").write_bytes(stream)
        paths.append(os.fsencode(tmp_path / f"{index}.jpg"))
    files = Sources(
        np.full(count, JPEG_FILE, np.uint8), [], np.zeros(count), np.zeros(count), np.zeros(count), paths, sources.sizes
    )
    pool = BatchPool(2)
    seen = set()
    for given in (sources, files):
        for fast in (False, True):
            out = np.zeros((count, 20, 20, 3), np.uint8)
            filling = pool.submit(given, geometry, out, PixelFormat(), fast)
            assert filling.wait(120)
            outcomes, reasons = filling.outcomes()
            assert np.isin(outcomes, (DONE, NOT_HANDLED, FAILED)).all()
            assert sorted(reasons) == np.flatnonzero(outcomes == FAILED).tolist() and all(reasons.values())
            seen |= set(outcomes.tolist())
    assert seen == {DONE, NOT_HANDLED, FAILED}
    pool.close()


@native_only
def test_mutated_betons_give_pixels_or_an_error(keep_beton: Path, raw_beton: Path, tmp_path: Path) -> None:
    generator = np.random.default_rng(3)
    path = tmp_path / "mutated.beton"
    read = 0
    for turn in range(60):
        data = bytearray((keep_beton, raw_beton)[turn % 2].read_bytes())
        head = 4096 if turn % 3 else len(data)
        for _ in range(int(generator.integers(1, 9))):
            data[int(generator.integers(head))] = int(generator.integers(256))
        path.write_bytes(data)
        try:
            with Loader(path, 5, view=TINY, on_error="skip", backend="native", threads=1) as loader:
                read += len(list(loader))
        except (BetonError, LoaderError):
            continue
        gc.collect()
    assert read


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
