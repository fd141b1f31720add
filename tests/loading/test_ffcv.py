"""The FFCV backend: FFCV's pixels, and everything else as with the other backends."""

import gc
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from fasttrain import Loader
from fasttrain.base.errors import LoaderError
from fasttrain.loading.batch import Batch
from fasttrain.loading.optional import why_absent
from fasttrain.loading.views import View, eval_view, train_view

from .test_backends import batches

if (_missing := why_absent("ffcv")) is not None and not os.environ.get("FASTTRAIN_REQUIRE_FFCV"):
    pytest.skip(_missing, allow_module_level=True)

# Dispatchers of numba complain when they are collected.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True)
def _collected() -> Iterator[None]:
    """They do it here, and not in the midst of other tests."""
    yield
    gc.collect()


EVAL = eval_view(24, interpolation="bilinear")


def same_but_pixels(ours: list[Batch], theirs: list[Batch]) -> float:
    """Mean difference of the normalised pixels; all else must be equal."""
    differences = []
    for mine, reference in zip(ours, theirs, strict=True):
        assert mine.images.shape == reference.images.shape and mine.images.dtype == reference.images.dtype
        assert mine.images.is_contiguous(memory_format=torch.channels_last)
        assert all(torch.equal(a, b) for a, b in zip(mine[1:], reference[1:], strict=True))
        assert torch.equal(mine.images[~mine.valid], reference.images[~reference.valid])
        differences.append((mine.images - reference.images)[mine.valid].abs().mean())
    return float(torch.stack(differences).mean())


def test_evaluation_gives_each_sample_once_and_nearly_pillows_pixels(keep_beton: Path, raw_beton: Path) -> None:
    for path in (keep_beton, raw_beton):
        with torch.inference_mode():
            ours, theirs = (batches(path, view=EVAL, backend=name, threads=1) for name in ("ffcv", "portable"))
        # Noise is what fast decoding and averaging over areas change most; another crop differs by 1 and more.
        assert same_but_pixels(ours, theirs) < 0.35


def test_training_takes_our_order_and_ffcvs_crops(keep_beton: Path) -> None:
    threads = torch.get_num_threads()
    options: dict[str, Any] = {
        "view": train_view(24, color_jitter=0.2),
        "seed": 3,
        "indices": [1, 4, 5, 9, 11, 15, 19],
        "dtype": torch.float16,
        "views": 2,
    }
    with Loader(keep_beton, 3, backend="ffcv", threads=2, **options) as loader:
        first = list(loader)
        loader.set_epoch(0)
        second = list(loader)
        passing = iter(loader)  # the second epoch
        next(passing)
        state = loader.state_dict()
        rest = [batch.ids.tolist() for batch in passing]
    assert not torch.equal(first[0].images[0], first[0].images[1])
    for mine, reference in zip(
        first, batches(keep_beton, backend="portable", **{**options, "batch_size": 3}), strict=True
    ):
        assert mine.images.shape == reference.images.shape and mine.images.dtype == reference.images.dtype
        assert all(torch.equal(a, b) for a, b in zip(mine[1:], reference[1:], strict=True))
    assert [batch.ids.tolist() for batch in first] == [batch.ids.tolist() for batch in second]
    assert not torch.equal(first[0].images, second[0].images)
    with Loader(keep_beton, 3, backend="portable", **options) as loader:
        loader.load_state_dict(state)
        assert [batch.ids.tolist() for batch in loader] == rest
    assert torch.get_num_threads() == threads


def test_batches_outlive_each_other(raw_beton: Path) -> None:
    with Loader(raw_beton, 2, view=EVAL, backend="ffcv", threads=1, prefetch=4) as loader:
        passes = [list(loader) for _ in range(2)]
    assert all(torch.equal(one.images, other.images) for one, other in zip(*passes, strict=True))
    assert len({float(batch.images.double().sum()) for batch in passes[0]}) == 10


def test_one_pipeline_serves_all_sizes(keep_beton: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What FFCV compiles knows nothing of the sizes, so it is compiled once."""
    from fasttrain.loading import ffcv

    made = []
    real = ffcv.FfcvLoader.generate_code
    monkeypatch.setattr(ffcv.FfcvLoader, "generate_code", lambda self: made.append(1) or real(self))
    sizes, counts = (24, 40, 17, 17, 24), (6, 4, 9, 20, 3)
    with Loader(keep_beton, counts.__getitem__, size=sizes.__getitem__, view=EVAL, backend="ffcv", threads=1) as loader:
        for size, count in zip(sizes, counts, strict=True):
            ours = list(loader)
            assert {tuple(batch.images.shape) for batch in ours} == {(count, 3, size, size)}
            view = EVAL.model_copy(update={"size": size})
            assert same_but_pixels(ours, batches(keep_beton, view=view, batch_size=count, backend="portable")) < 0.35
    assert made == [1]


def test_a_failure_of_ffcv_is_an_error_and_no_wait(keep_beton: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fasttrain.loading import ffcv

    def fail(*_: object) -> None:
        raise OSError("the disk is gone")

    monkeypatch.setattr(ffcv._Unstarted, "run_pipeline", fail)
    with Loader(keep_beton, 8, view=EVAL, backend="ffcv") as loader, pytest.raises(LoaderError, match="disk is gone"):
        list(loader)


@pytest.mark.parametrize(
    ("view", "message"),
    [
        (eval_view(24), "no bicubic filter, .* take a view with interpolation='bilinear'"),
        (train_view(24, vflip=0.1), r"cannot do what the view asks for \(vflip\); use backend='auto'"),
        (eval_view(24, interpolation="bilinear", crop_mode="squash", hflip=True), r"\(crop_mode, hflip\)"),
        (eval_view(24, interpolation="bilinear", anchor="top_left"), r"\(anchor\)"),
    ],
)
def test_views_that_ffcv_cannot_make(keep_beton: Path, view: View, message: str) -> None:
    with pytest.raises(LoaderError, match=message):
        Loader(keep_beton, 8, view=view, backend="ffcv")


def test_decoded_images_are_not_kept(keep_beton: Path) -> None:
    with pytest.raises(LoaderError, match="keeps no decoded images; leave memory_budget out"):
        Loader(keep_beton, 8, view=EVAL, backend="ffcv", memory_budget="1GB")


def test_data_that_ffcv_cannot_read(keep_beton: Path, raw_beton: Path, photos: Path) -> None:
    for data in (photos, [keep_beton, raw_beton]):
        with pytest.raises(LoaderError, match=r"reads one \.beton file"):
            Loader(data, 8, view=EVAL, backend="ffcv")


def test_flips_in_turns_are_refused_since_ffcv_flips_by_itself(keep_beton: Path) -> None:
    with pytest.raises(LoaderError, match="hflip=alternating"):
        Loader(keep_beton, 4, view=train_view(16, hflip="alternating"), backend="ffcv")


def test_views_are_moved_as_the_plan_says(keep_beton: Path) -> None:
    view = EVAL.model_copy(update={"shift": (1, 2)})
    moved, plain = (batches(keep_beton, view=one, backend="ffcv", threads=1) for one in (view, EVAL))
    assert torch.equal(moved[0].images[:, :, 2:, 1:], plain[0].images[:, :, :-2, :-1])
