"""Decoding threads of a lower priority."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from fasttrain.base.errors import LoaderError
from fasttrain.kernels.loading import loading_available
from fasttrain.loading.backend import check_nice
from fasttrain.loading.loader import Loader
from fasttrain.loading.views import train_view

BACKENDS = [*(["native"] if loading_available() else []), "portable"]
linux = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere threads have no priority of their own")


def niceness() -> dict[str, int]:
    """Of each thread of this process but the one that reads ahead, by its number."""
    found = {}
    for task in Path("/proc/self/task").iterdir():
        try:
            name, _, fields = (task / "stat").read_text().partition("(")[2].rpartition(")")
        except OSError:  # it has ended
            continue
        if name != "fasttrain-ahead":
            found[task.name] = int(fields.split()[16])
    return found


@linux
@pytest.mark.parametrize("backend", BACKENDS)
def test_the_threads_that_decode_are_nicer_than_the_rest_and_give_the_same(backend: str, photos: Path) -> None:
    own, before, passes = os.getpriority(os.PRIO_PROCESS, 0), niceness(), []
    for nice in (0, 7):
        with Loader(photos, 4, view=train_view(24), threads=2, nice=nice, backend=backend) as loader:
            passes.append(list(loader))
            now = niceness()
            assert {value for thread, value in now.items() if thread not in before} == {own + nice}
            assert all(now[thread] == value for thread, value in before.items() if thread in now)
    for one, other in zip(*passes, strict=True):
        assert torch.equal(one.images, other.images) and np.array_equal(one.ids, other.ids)


@linux
@pytest.mark.skipif(not loading_available(), reason="the native extension was not built")
def test_what_the_native_threads_leave_over_is_done_as_nicely(photos: Path, tmp_path: Path) -> None:
    from PIL import Image

    (tmp_path / "a").mkdir()
    for number in range(4):
        Image.new("RGB", (20, 20)).save(tmp_path / "a" / f"{number}.png")
    before = niceness()
    with Loader(tmp_path, 4, view=train_view(8), threads=2, nice=5, backend="native") as loader:
        assert len(list(loader)) == 1
        assert loader._backend.handed_over == 4  # type: ignore[attr-defined]
        new = [value for thread, value in niceness().items() if thread not in before]
    assert set(new) == {os.getpriority(os.PRIO_PROCESS, 0) + 5} and len(new) > 2


@pytest.mark.parametrize(
    ("nice", "backend", "words"),
    [
        (20, "auto", "nice must be 0 to 19, not 20"),
        (-1, "auto", "nice must be 0 to 19, not -1"),
        (5, "dali", "threads that are not ours"),
        (5, "ffcv", "threads that are not ours"),
    ],
)
def test_a_priority_that_cannot_be_had_is_refused(nice: int, backend: str, words: str) -> None:
    with pytest.raises(LoaderError, match=words):
        check_nice(nice, backend)


def test_other_systems_refuse_it(monkeypatch: pytest.MonkeyPatch, photos: Path) -> None:
    monkeypatch.setattr("fasttrain.loading.backend.threads_have_priorities", lambda: False)
    with pytest.raises(LoaderError, match="only Linux"):
        Loader(photos, 4, nice=1)
    Loader(photos, 4).close()
