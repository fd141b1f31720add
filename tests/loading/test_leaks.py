"""A thousand epochs leave nothing behind: no thread, no file, no memory."""

import gc
import os
import threading
from pathlib import Path

import pytest

from fasttrain.kernels.loading import loading_available
from fasttrain.loading.loader import Loader
from fasttrain.loading.views import train_view

EPOCHS, WARM = 1000, 200


def resident_mib() -> float:
    with Path("/proc/self/status").open() as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) / 1024


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files through /proc")
def test_a_thousand_epochs(raw_beton: Path) -> None:
    def state() -> tuple[int, int]:
        gc.collect()
        return threading.active_count(), len(os.listdir("/proc/self/fd"))

    with Loader(raw_beton, 10, view=train_view(4), threads=2) as loader:
        for epoch in range(EPOCHS):
            for batch in loader:
                assert len(batch.ids) == 10
                if epoch % 3 == 0:
                    break  # passes that are left half-way, too
            if epoch == WARM:
                before, memory = state(), resident_mib()
        assert state() == before
        assert resident_mib() - memory < 8


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files through /proc")
def test_a_hundred_loaders(raw_beton: Path) -> None:
    before = (threading.active_count(), len(os.listdir("/proc/self/fd")))
    for _ in range(100):
        with Loader(raw_beton, 10, view=train_view(4), threads=2) as loader:
            next(iter(loader))
    del loader  # it still holds views into the mapped file
    gc.collect()
    assert (threading.active_count(), len(os.listdir("/proc/self/fd"))) == before


@pytest.mark.skipif(not loading_available(), reason="the native kernels were not built")
def test_a_batch_that_is_given_up_serves_the_next_one(raw_beton: Path) -> None:
    """In memory are the batches that are filled ahead, and none besides that the caller does not hold."""
    with Loader(raw_beton, 2, view=train_view(4), prefetch=2, backend="native") as loader:
        batches = iter(loader)
        addresses = [next(batches).images.data_ptr() for _ in range(len(loader))]
    assert len(addresses) >= 4 and len(set(addresses)) <= 3
