"""The windowed order through the public Loader: random, bounded, the same whatever the world, and resumable."""

from pathlib import Path

import numpy as np
import pytest

from fasttrain.base.errors import LoaderError
from fasttrain.beton_build.format import MODE_RAW
from fasttrain.beton_build.reader import BetonReader
from fasttrain.beton_build.values import EncodedImage
from fasttrain.beton_build.writer import BetonWriter
from fasttrain.loading.loader import Loader
from fasttrain.loading.views import train_view

SAMPLES, SIDE = 120, 300  # 270 kB each: seven to a page of 2 MiB


@pytest.fixture(scope="module")
def paged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("paged") / "a.beton"
    with BetonWriter(path, SAMPLES) as writer:
        for row in range(SAMPLES):
            writer.add(f"s{row}", [EncodedImage(bytes([row]) * (3 * SIDE * SIDE), MODE_RAW, SIDE, SIDE), row % 5])
    return path


def order_of(path: Path, batch: int, **options: object) -> list[int]:
    with Loader(path, batch, view=train_view(8), order="windowed", threads=1, **options) as loader:  # type: ignore[arg-type]
        return [int(row) for batch_ in loader for row in batch_.ids]


def test_a_memory_budget_sets_the_window(paged: Path) -> None:
    stored = 3 * SIDE * SIDE * SAMPLES
    with Loader(paged, 8, view=train_view(8), threads=1, memory_budget=stored // 3) as loader:
        assert loader.memory_plan is not None and loader.memory_plan.window == 3
        order = [int(row) for batch in loader for row in batch.ids]
    assert order == order_of(paged, 8, window=3) != order_of(paged, 8)


def test_few_pages_are_read_at_a_time(paged: Path) -> None:
    order = order_of(paged, 8, window=3)
    assert sorted(order) == list(range(SAMPLES)) and order != sorted(order)
    with BetonReader(paged) as reader:
        pages = (reader.offsets[order] // np.uint64(reader.page_size)).tolist()
    assert len(set(pages)) > 12
    for start in range(0, SAMPLES - 8, 8):  # a batch lies in one window, or at the edge of two
        assert len(set(pages[start : start + 8])) <= 6
    assert order != order_of(paged, 8, window=3, seed=1)


def test_the_order_does_not_depend_on_batches_and_ranks(paged: Path) -> None:
    alone = order_of(paged, 8, window=2)
    assert order_of(paged, 24, window=2) == alone
    ranks = [order_of(paged, 4, window=2, rank=rank, world=2) for rank in range(2)]
    dealt = [ranks[rank][step : step + 4] for step in range(0, SAMPLES // 2, 4) for rank in range(2)]
    assert [row for part in dealt for row in part] == alone


def test_it_goes_on_where_it_stood(paged: Path) -> None:
    whole = order_of(paged, 10, window=2)
    with Loader(paged, 10, view=train_view(8), order="windowed", window=2, threads=1) as loader:
        batches = iter(loader)
        for _ in range(4):
            next(batches)
        state = loader.state_dict()
    with Loader(paged, 6, view=train_view(8), order="windowed", window=2, threads=1) as loader:
        loader.load_state_dict(state)
        rest = [int(row) for batch in loader for row in batch.ids]
    assert rest == whole[40 : 40 + len(rest)] and len(rest) == 78  # whole batches of 6
    with (
        Loader(paged, 10, view=train_view(8), order="windowed", window=3, threads=1) as loader,
        pytest.raises(LoaderError, match="another order"),
    ):
        loader.load_state_dict(state)


def test_several_files_and_folders(paged: Path, keep_beton: Path, photos: Path) -> None:
    with Loader([keep_beton, photos], 8, view=train_view(8), order="windowed", window=1, threads=1) as loader:
        rows = [int(row) for batch in loader for row in batch.ids]
    assert len(set(rows)) == len(rows) == 40
    blocks = [row // 20 for row in rows]
    assert blocks in ([0] * 20 + [1] * 20, [1] * 20 + [0] * 20)  # one part after the other
    with pytest.raises(LoaderError, match="window must be at least 1"):
        Loader(paged, 8, order="windowed", window=0)
