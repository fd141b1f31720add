"""What the native backend does beyond the contract of all of them: odd files, forks, hostile bytes."""

import gc
import os
import subprocess
import sys
import tarfile
import time
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fasttrain import Loader
from fasttrain.base.errors import BetonError, LoaderError
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
from fasttrain.loading.views import eval_view, train_view
from fasttrain.tools.mutants import mutant
from fasttrain.tools.mutants.segments import SOS, find_segments

from .conftest import picture
from .test_backends import batches, psnr

pytestmark = pytest.mark.skipif(not loading.loading_available(), reason="the native kernels were not built")
TINY = eval_view(8)


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


def test_images_in_tar_archives(photos: Path, tmp_path: Path) -> None:
    archive = tmp_path / "photos.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(photos / "cat", "cat")
        tar.add(photos / "dog", "dog")
    ours = batches(archive, view=TINY, backend="native")
    theirs = batches(photos, view=TINY, backend="native")
    assert all(torch.equal(a.images, b.images) for a, b in zip(ours, theirs, strict=True))


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


def test_fast_decoding_is_near_the_exact_one(tmp_path: Path) -> None:
    folder = tmp_path / "only"
    folder.mkdir()
    for index in range(4):
        picture(100, 80, index).resize((600, 500), Image.Resampling.BICUBIC).save(folder / f"{index}.jpg")
    plain = eval_view(48, interpolation="bilinear", mean=(0, 0, 0), std=(1, 1, 1))
    exact = batches(tmp_path, view=plain, backend="native", batch_size=4)
    fast = batches(tmp_path, view=plain, backend="native", batch_size=4, decode="fast")
    assert 30 < psnr(fast, exact) < 90


def test_a_progressive_image_without_its_later_scans_is_what_pillow_makes_of_it(tmp_path: Path) -> None:
    """libjpeg makes the missing details up, and in a crop other ones than in the whole image."""
    folder = tmp_path / "only"
    folder.mkdir()
    for index in range(4):
        stream = BytesIO()
        picture(80, 60, index).save(stream, "JPEG", progressive=True)
        data = stream.getvalue()
        scans = [segment for segment in find_segments(data) if segment.marker == SOS]
        cut = data.index(b"\xff\xc4", scans[index].stop)  # the tables of the next scan
        (folder / f"{index}.jpg").write_bytes(data[:cut] + b"\xff\xd9")
    view = train_view(20, interpolation="bilinear", mean=(0, 0, 0), std=(1, 1, 1))
    ours, theirs = (batches(tmp_path, view=view, backend=name, batch_size=4) for name in ("native", "portable"))
    assert ours[0].valid.all()
    assert (ours[0].images - theirs[0].images).abs().max() < 2 / 255


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


def test_a_process_ends_with_loaders_at_work(keep_beton: Path) -> None:
    script = f"""
from fasttrain import Loader
from fasttrain.loading.views import train_view
loader = Loader({str(keep_beton)!r}, 5, view=train_view(224), backend="native", prefetch=3)
passing = iter(loader)
next(passing)
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


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
    for out in (np.zeros((2, 4, 4, 4), np.uint8), np.zeros((2, 4, 4, 3)), np.zeros((2, 4, 4, 6), np.uint8)[..., ::2]):
        with pytest.raises(ValueError, match="out must be"):
            pool.submit(stored_elsewhere(2), geometry, out, PixelFormat())
    pool.close()


# --- hostile bytes ----------------------------------------------------------------------------------------------------


def outcomes_of(pool: BatchPool, sources: Sources, fast: bool) -> np.ndarray:
    """What became of samples whose upper left corner is shown; every failure has a reason, and only those."""
    count = len(sources.stored)
    boxes = np.concatenate([np.zeros((count, 2), np.int64), np.minimum(sources.sizes, 40)], 1)
    flips = np.arange(count) % 2 == 0
    geometry = Geometry(boxes, np.full((count, 2), 20), np.zeros((count, 2)), flips, flips, "bicubic")
    filling = pool.submit(sources, geometry, np.zeros((count, 20, 20, 3), np.uint8), PixelFormat(), fast)
    assert filling.wait(120)
    outcomes, reasons = filling.outcomes()
    assert np.isin(outcomes, (DONE, NOT_HANDLED, FAILED)).all()
    assert sorted(reasons) == np.flatnonzero(outcomes == FAILED).tolist() and all(reasons.values())
    return outcomes


def test_500_mutated_jpegs_give_pixels_or_an_error(tmp_path: Path) -> None:
    mutants = [mutant(seed, "jpeg") for seed in range(500)]
    streams, count = [one.data for one in mutants], len(mutants)
    starts = np.cumsum([0, *(len(stream) for stream in streams)])
    sizes = np.array([(one.width, one.height) for one in mutants])
    stored = Sources(
        np.full(count, JPEG, np.uint8), [b"".join(streams)], np.zeros(count, np.int64), starts[:-1], np.diff(starts),
        [None] * count, sizes,
    )  # fmt: skip
    paths: list[bytes | None] = []
    for index, stream in enumerate(streams):
        (tmp_path / f"{index}.jpg").write_bytes(stream)
        paths.append(os.fsencode(tmp_path / f"{index}.jpg"))
    none = np.zeros(count, np.int64)
    files = Sources(np.full(count, JPEG_FILE, np.uint8), [], none, none, none, paths, sizes)
    pool = BatchPool(2)
    seen = {int(code) for given in (stored, files) for fast in (False, True) for code in outcomes_of(pool, given, fast)}
    assert seen == {DONE, NOT_HANDLED, FAILED}
    pool.close()


def test_mutated_betons_give_pixels_or_an_error(tmp_path: Path) -> None:
    path = tmp_path / "mutated.beton"
    read = 0
    for seed in range(60):
        path.write_bytes(mutant(seed, "beton").data)
        try:
            with Loader(path, 5, view=TINY, on_error="skip", backend="native", threads=1) as loader:
                read += sum(int(batch.valid.sum()) for batch in loader)
        except (BetonError, LoaderError) as error:
            assert path.name in str(error)
            continue
        gc.collect()
    assert read
