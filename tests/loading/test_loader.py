import contextlib
import gc
import json
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fasttrain import Loader
from fasttrain.base.errors import ImageError, LoaderError
from fasttrain.loading.views import eval_view, train_view

TINY = eval_view(8)


def loader_threads() -> int:
    """Threads of Python, and those of C++ where the system lists them."""
    found = {thread.native_id for thread in threading.enumerate() if thread.name.startswith("fasttrain-load")}
    for name in Path("/proc/self/task").glob("*/comm"):
        with contextlib.suppress(OSError):  # it has just ended
            if name.read_text().startswith("fasttrain-load"):
                found.add(int(name.parent.name))
    return len(found)


def wait_until_no_threads() -> None:
    deadline = time.monotonic() + 5
    while loader_threads() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert loader_threads() == 0


def ids_of(loader: Loader) -> list[list[int]]:
    return [batch.ids.tolist() for batch in loader]


def rows_of(loader: Loader) -> list[int]:
    return [row for batch in loader for row in batch.ids.tolist()]


def test_batches_are_whole_and_named(keep_beton: Path) -> None:
    with Loader(keep_beton, 8, view=eval_view(16), threads=2) as loader:
        assert (len(loader), loader.num_samples, loader.num_classes) == (3, 20, 2)
        assert loader.class_names == ["cat", "dog"]
        batches = list(loader)
        assert len(batches) == 3
        for batch in batches:
            assert batch.images.shape == (8, 3, 16, 16) and batch.images.dtype == torch.float32
            assert batch.images.is_contiguous(memory_format=torch.channels_last)
            assert (batch.labels.dtype, batch.ids.dtype, batch.valid.dtype) == (torch.int64, torch.int64, torch.bool)
        last = batches[-1]
        assert last.valid.tolist() == [True] * 4 + [False] * 4
        assert last.ids[4:].tolist() == last.labels[4:].tolist() == [-1] * 4
        assert loader.string_ids(last.ids[last.valid])[-1] == "dog/9.jpg"
        assert torch.cat([batch.labels for batch in batches])[:20].tolist() == [0] * 10 + [1] * 10


def test_rows_of_padding_have_no_name(keep_beton: Path) -> None:
    with Loader(keep_beton, 8, view=TINY) as loader, pytest.raises(LoaderError, match=r"ids\[valid\]"):
        loader.string_ids([0, -1])


def test_views_decide_on_the_order(keep_beton: Path) -> None:
    with Loader(keep_beton, 5, view=TINY) as loader:
        assert rows_of(loader) == list(range(20))
    with Loader(keep_beton, 5, view=train_view(8)) as loader:
        order = rows_of(loader)
        assert sorted(order) == list(range(20)) and order != list(range(20))
    with Loader(keep_beton, 8, view=train_view(8), order="sequential") as loader:
        assert len(loader) == 3


def test_the_default_view_is_a_training_view(keep_beton: Path) -> None:
    with Loader(keep_beton, 10) as loader:
        assert next(iter(loader)).images.shape == (10, 3, 224, 224)


def test_epochs_follow_each_other_and_can_be_set(keep_beton: Path) -> None:
    with Loader(keep_beton, 5, view=train_view(8)) as loader:
        first, second = ids_of(loader), ids_of(loader)
        assert first != second
        loader.set_epoch(0)
        assert ids_of(loader) == first
        loader.set_epoch(1)
        assert ids_of(loader) == second
        with pytest.raises(LoaderError, match="counted from 0"):
            loader.set_epoch(-1)


def test_the_rank_and_world_of_torchrun_are_found(keep_beton: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with Loader(keep_beton, 4, view=TINY) as loader:
        assert ids_of(loader) == [[4, 5, 6, 7], [12, 13, 14, 15], [-1, -1, -1, -1]]


def test_a_part_of_the_data_by_rows_or_names(keep_beton: Path) -> None:
    with Loader(keep_beton, 2, view=TINY, indices=[7, 3, 11]) as loader:
        assert ids_of(loader) == [[7, 3], [11, -1]]
        assert loader.num_samples == 3
        names = loader.string_ids([11, 3])
    with Loader(keep_beton, 2, view=TINY, indices=names) as loader:
        assert ids_of(loader) == [[11, 3]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"on_error": "ignore"}, "'raise' or 'skip'"),
        ({"backend": "dalli"}, "no loader backend 'dalli'; choose one of auto, native, portable"),
        ({"decode": "slow"}, "'exact' or 'fast'"),
        ({"order": "shuffle"}, "one of random, windowed, sequential"),
        ({"threads": 0}, "at least 1"),
        ({"prefetch": 0}, "at least 1"),
        ({"batch_size": 21, "view": train_view(8)}, "use a batch size of 20 or less"),
        ({"batch_size": 0}, "at least 1"),
        ({"rank": 2, "world": 2}, "not one of a world of 2"),
    ],
)
def test_impossible_arguments_say_so(keep_beton: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(LoaderError, match=message):
        Loader(keep_beton, **{"batch_size": 4, "view": TINY, **options})
    assert loader_threads() == 0


# --- errors -----------------------------------------------------------------------------------------------------------


def test_a_broken_image_is_raised_with_its_id_and_path(broken_tree: Path) -> None:
    folder = broken_tree / "only"
    (folder / "text.jpg").unlink()
    with Loader(broken_tree, 3, view=TINY, threads=2) as loader:
        with pytest.raises(ImageError) as caught:
            list(loader)
        assert caught.value.sample_id == "only/cut.jpg" and caught.value.path == str(folder / "cut.jpg")
        with pytest.raises(ImageError):  # not once only, and nothing hangs
            list(loader)
    wait_until_no_threads()


def test_broken_images_can_be_skipped(broken_tree: Path) -> None:
    with Loader(broken_tree, 4, view=TINY, threads=2, on_error="skip") as loader:
        for _ in range(2):
            batches = list(loader)
            assert sum(int(batch.valid.sum()) for batch in batches) == 8
            assert [batch.valid.tolist() for batch in batches][2] == [False, False, False, False]
        black = torch.tensor([-m / s for m, s in zip(TINY.mean, TINY.std, strict=True)])
        for index in (0, 1):  # entries 8 and 9, which are broken
            torch.testing.assert_close(batches[2].images[index], black[:, None, None].expand(3, 8, 8))
        assert batches[2].ids.tolist() == [8, 9, -1, -1]
        # Each once, however many epochs.
        assert sorted(name for name, _ in loader.skipped) == ["only/cut.jpg", "only/text.jpg"]
        assert all(reason for _, reason in loader.skipped)


def test_an_image_without_a_size_is_never_shown_as_one_pixel(
    broken_tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A header that cannot be read at first and an image that can be decoded then."""
    with Loader(broken_tree, 10, view=TINY, threads=1, on_error="skip", backend="portable") as loader:
        decode = loader.dataset.decode
        monkeypatch.setattr(loader.dataset, "decode", lambda row: decode(0) if row == 9 else decode(row))
        (batch,) = loader
        assert batch.valid.tolist() == [True] * 8 + [False, False]


def test_other_failures_of_a_thread_name_the_sample(keep_beton: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Loader(keep_beton, 4, view=TINY, on_error="skip", backend="portable") as loader:
        monkeypatch.setattr(loader.dataset, "decode", lambda row: np.zeros((2, 2, 7), np.uint8))
        with pytest.raises(LoaderError, match=r"failed on sample 'cat/0\.jpg'"):
            list(loader)


# --- position ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [0, 1, 3, 4, 5, 7, 8])
@pytest.mark.parametrize("prefetch", [1, 4])
def test_a_new_loader_goes_on_where_another_stood(keep_beton: Path, steps: int, prefetch: int) -> None:
    options: dict[str, Any] = {"view": train_view(8, color_jitter=0.4), "seed": 7, "prefetch": prefetch}

    def run(loader: Loader, epochs: int) -> list[tuple[list[int], torch.Tensor]]:
        return [(batch.ids.tolist(), batch.images) for _ in range(epochs) for batch in loader]

    with Loader(keep_beton, 5, **options) as loader:
        whole = run(loader, 3)
    with Loader(keep_beton, 5, **options) as loader:
        for _ in range(steps // 4):
            list(loader)
        passing = iter(loader)
        for _ in range(steps % 4):
            next(passing)
        state = json.loads(json.dumps(loader.state_dict()))
    with Loader(keep_beton, 5, **options) as loader:
        loader.load_state_dict(state)
        assert loader.state_dict() == state
        rest = run(loader, 3 - steps // 4)
    assert [ids for ids, _ in rest] == [ids for ids, _ in whole[steps:]]
    assert all(torch.equal(ours[1], theirs[1]) for ours, theirs in zip(rest, whole[steps:], strict=True))


def test_another_world_goes_on_at_the_same_place(keep_beton: Path) -> None:
    view = train_view(8)
    with Loader(keep_beton, 2, view=view, world=1, rank=0) as loader:
        whole = rows_of(loader)
        loader.set_epoch(0)
        passing = iter(loader)
        next(passing), next(passing)
        state = loader.state_dict()
    ranks = []
    for rank in range(2):
        with Loader(keep_beton, 2, view=view, world=2, rank=rank) as loader:
            loader.load_state_dict(state)
            ranks.append(ids_of(loader))
    rest = [row for pair in zip(*ranks, strict=True) for batch in pair for row in batch]
    assert rest == whole[4:]


def test_states_of_other_data_are_refused(keep_beton: Path, raw_beton: Path) -> None:
    with Loader(keep_beton, 5, view=train_view(8)) as loader:
        state = loader.state_dict()
        for changed in ({"epoch": -1}, {"offset": 21}, {"offset": "x"}, {"offset": None}):
            with pytest.raises(LoaderError, match="damaged"):
                loader.load_state_dict({**state, **changed})
        with pytest.raises(LoaderError, match="data set"):
            loader.load_state_dict({})
    for other, what in (
        (Loader(raw_beton, 5, view=train_view(8)), "data set"),
        (Loader(keep_beton, 5, view=train_view(8), seed=1), "seed"),
        (Loader(keep_beton, 5, view=TINY), "order"),
        (Loader(keep_beton, 5, view=train_view(8), indices=range(10)), "choice of samples"),
    ):
        with other, pytest.raises(LoaderError, match=f"another {what}"):
            other.load_state_dict(state)


def test_a_pass_left_half_way_begins_again(keep_beton: Path) -> None:
    for view in (TINY, train_view(8)):
        with Loader(keep_beton, 5, view=view) as loader:
            whole = ids_of(loader)
            loader.set_epoch(0)
            for _ in loader:
                break
            assert ids_of(loader) == whole  # an evaluation misses nothing
            assert len(whole) == len(loader)


def test_a_resumed_pass_left_half_way_begins_again_as_a_whole(keep_beton: Path) -> None:
    with Loader(keep_beton, 5, view=TINY) as loader:
        loader.load_state_dict({**loader.state_dict(), "offset": 10})
        assert next(iter(loader)).ids.tolist() == [10, 11, 12, 13, 14]
        assert rows_of(loader) == list(range(20))


# --- lifetime ---------------------------------------------------------------------------------------------------------


def test_closing_ends_the_threads(keep_beton: Path) -> None:
    with Loader(keep_beton, 2, view=TINY, threads=3) as loader:
        passing = iter(loader)
        next(passing)
        assert 0 < loader_threads() <= 3
    assert loader_threads() == 0
    with pytest.raises(LoaderError, match="closed"):
        next(passing)
    with pytest.raises(LoaderError, match="closed"):
        iter(loader)
    loader.close()  # a second time does nothing


def test_nothing_is_left_of_a_forgotten_loader(keep_beton: Path) -> None:
    loader = Loader(keep_beton, 2, view=TINY, threads=3)
    passing = iter(loader)
    next(passing)
    del loader, passing
    gc.collect()
    wait_until_no_threads()


def test_passes_re_use_the_threads_and_abandoned_ones_leave_no_work(keep_beton: Path) -> None:
    with Loader(keep_beton, 2, view=TINY, threads=2) as loader:
        for _ in range(20):
            next(iter(loader))
        assert loader_threads() <= 2
        gc.collect()
        assert len(list(loader)) == 10


def test_an_abandoned_pass_is_not_read_to_its_end(keep_beton: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Loader(keep_beton, 5, view=TINY, threads=1, prefetch=3, backend="portable") as loader:
        decode, decoded = loader.dataset.decode, []

        def slowly(row: int) -> np.ndarray:
            decoded.append(row)
            time.sleep(0.01)
            return decode(row)

        monkeypatch.setattr(loader.dataset, "decode", slowly)
        passing = iter(loader)
        next(passing)
        passing.close()  # what leaving a for loop does
        time.sleep(0.3)
        assert len(decoded) < 10


def test_no_more_is_read_ahead_than_asked_for(keep_beton: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Loader(keep_beton, 2, view=TINY, threads=2, prefetch=2, backend="portable") as loader:
        decode, decoded = loader.dataset.decode, []

        def noted(row: int) -> np.ndarray:
            decoded.append(row)
            return decode(row)

        monkeypatch.setattr(loader.dataset, "decode", noted)
        passing = iter(loader)
        next(passing)
        time.sleep(0.2)
        assert len(decoded) <= 2 * (1 + 2)


def test_two_passes_at_once_do_not_disturb_each_other(keep_beton: Path) -> None:
    with Loader(keep_beton, 5, view=TINY) as loader:
        pairs = [(one.ids.tolist(), other.ids.tolist()) for one, other in zip(loader, loader, strict=True)]
    assert all(one == other for one, other in pairs) and len(pairs) == 4


# --- in other people's loops ------------------------------------------------------------------------------------------


def test_a_plain_torch_loop_learns_from_it(keep_beton: Path) -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with Loader(keep_beton, 10, view=TINY, order="random") as loader:
        losses = []
        for epoch in range(8):
            loader.set_epoch(epoch)
            for images, labels, _, valid in loader:
                loss = torch.nn.functional.cross_entropy(model(images)[valid], labels[valid])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_timms_validation_loop_shape(keep_beton: Path) -> None:
    """timm's scripts want pairs and a length."""
    with Loader(keep_beton, 10, view=TINY) as loader:
        pairs = [(batch.images, batch.labels) for batch in loader]
        assert len(pairs) == len(loader)
        assert all(images.shape[0] == target.shape[0] == 10 for images, target in pairs)
