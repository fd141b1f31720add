import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms import functional as F

from fasttrain.loading.plan import BatchPlan, plan_batch
from fasttrain.loading.sampler import PADDING
from fasttrain.loading.views import View, eval_view, train_view

sides = st.tuples(st.integers(1, 700), st.integers(1, 700))
image_sizes = st.lists(sides, min_size=1, max_size=24)
FIELDS = ("boxes", "resized", "offsets", "hflip", "vflip")


def plan(view: View, sizes: list[tuple[int, int]], keys: list[int] | None = None, epoch: int = 0) -> BatchPlan:
    wanted = np.array(keys if keys is not None else range(len(sizes)), np.uint64)
    return plan_batch(view, np.arange(len(sizes)), wanted, np.array(sizes, np.int64).reshape(-1, 2), 5, epoch)


@given(image_sizes, st.floats(0.01, 1), st.floats(0.2, 1), st.floats(1, 5), st.integers(0, 1000))
def test_train_boxes_lie_inside_of_the_image(
    sizes: list[tuple[int, int]], least: float, low: float, high: float, epoch: int
) -> None:
    boxes = plan(train_view(scale=(least, 1.0), ratio=(low, high)), sizes, epoch=epoch).boxes
    left, top, width, height = boxes.T
    limits = np.array(sizes)
    assert (left >= 0).all() and (top >= 0).all() and (width >= 1).all() and (height >= 1).all()
    assert (left + width <= limits[:, 0]).all() and (top + height <= limits[:, 1]).all()


@given(image_sizes, st.integers(1, 7), st.integers(0, 3))
def test_plans_do_not_depend_on_the_batch(sizes: list[tuple[int, int]], batch: int, epoch: int) -> None:
    view = train_view(vflip=0.5, color_jitter=(0.4, 0.4, 0.4, 0.1))
    keys = [hash((size, index)) % 2**64 for index, size in enumerate(sizes)]
    whole = plan(view, sizes, keys, epoch)
    for start in range(0, len(sizes), batch):
        part = slice(start, start + batch)
        piece = plan(view, sizes[part], keys[part], epoch)
        for name in FIELDS:
            np.testing.assert_array_equal(getattr(piece, name), getattr(whole, name)[part])
        assert piece.jitter is not None and whole.jitter is not None
        np.testing.assert_array_equal(piece.jitter.factors, whole.jitter.factors[part])
        np.testing.assert_array_equal(piece.jitter.order, whole.jitter.order[part])


@pytest.mark.parametrize("size", [(500, 375), (90, 400)])
def test_crops_are_distributed_as_those_of_torchvision(size: tuple[int, int]) -> None:
    count = 4000
    ours = plan(train_view(), [size] * count).boxes.astype(float)
    torch.manual_seed(0)
    image = torch.empty(3, size[1], size[0])
    drawn = [RandomResizedCrop.get_params(image, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(count)]
    theirs = np.array(drawn, float)[:, [1, 0, 3, 2]]  # top, left, height, width -> left, top, width, height
    for quantile in (0.1, 0.25, 0.5, 0.75, 0.9):
        np.testing.assert_allclose(
            np.quantile(ours, quantile, axis=0), np.quantile(theirs, quantile, axis=0), atol=0.045 * max(size)
        )


def test_every_place_of_a_box_is_equally_likely() -> None:
    boxes = plan(train_view(scale=(0.25, 0.25), ratio=(1, 1)), [(4, 4)] * 9000).boxes
    places, counts = np.unique(boxes, axis=0, return_counts=True)
    assert places.tolist() == [[left, top, 2, 2] for left in range(3) for top in range(3)]
    assert (np.abs(counts - 1000) < 160).all()


def test_without_a_fitting_crop_the_central_box_is_taken_as_torchvision_does() -> None:
    for size in ((1000, 10), (10, 1000)):
        view = train_view(scale=(0.9, 1.0))
        box = plan(view, [size]).boxes[0].tolist()
        top, left, height, width = RandomResizedCrop.get_params(
            torch.empty(3, size[1], size[0]), list(view.scale), list(view.ratio)
        )
        assert box == [left, top, width, height]


def test_flips_have_their_probabilities_and_are_independent() -> None:
    planned = plan(train_view(hflip=0.3, vflip=0.6), [(9, 9)] * 20_000)
    assert abs(planned.hflip.mean() - 0.3) < 0.015
    assert abs(planned.vflip.mean() - 0.6) < 0.015
    assert abs((planned.hflip & planned.vflip).mean() - 0.18) < 0.015
    for chance in (0.0, 1.0):
        assert (plan(train_view(hflip=chance), [(9, 9)] * 500).hflip == bool(chance)).all()


def test_jitter_factors_keep_to_their_ranges_and_all_orders_occur() -> None:
    jitter = plan(train_view(color_jitter=(0.2, 1.5, 0.0, 0.1)), [(9, 9)] * 5000).jitter
    assert jitter is not None
    low, high = jitter.factors.min(0), jitter.factors.max(0)
    np.testing.assert_allclose(low, [0.8, 0.0, 1.0, -0.1], atol=0.01)
    np.testing.assert_allclose(high, [1.2, 2.5, 1.0, 0.1], atol=0.01)
    assert len(np.unique(jitter.order, axis=0)) == 24
    assert (np.sort(jitter.order, axis=1) == np.arange(4)).all()
    assert plan(train_view(), [(9, 9)]).jitter is None


@given(sides, st.integers(1, 300), st.floats(0.3, 1.0))
def test_eval_geometry_is_torchvisions(size: tuple[int, int], side: int, crop_pct: float) -> None:
    view = eval_view(side, crop_pct=crop_pct)
    planned = plan(view, [size])
    width, height = planned.resized[0].tolist()
    target = int(np.floor(side / crop_pct))
    expected = F._compute_resized_output_size((size[1], size[0]), [target])
    assert [height, width] == expected
    left, top = planned.offsets[0].tolist()
    assert (left, top) == (round((width - side) / 2.0), round((height - side) / 2.0))
    assert planned.boxes[0].tolist() == [0, 0, *size]


def test_anchors_are_those_of_five_crop() -> None:
    image = torch.arange(40 * 60).reshape(1, 40, 60)
    crops = F.five_crop(image, [32, 32])
    for anchor, crop in zip(("top_left", "top_right", "bottom_left", "bottom_right", "center"), crops, strict=True):
        planned = plan(eval_view(32, crop_pct=0.8, anchor=anchor), [(60, 40)])
        assert planned.resized[0].tolist() == [60, 40]
        left, top = planned.offsets[0].tolist()
        assert torch.equal(image[:, top : top + 32, left : left + 32], crop)


def test_padded_entries_are_marked() -> None:
    rows = np.array([3, PADDING])
    planned = plan_batch(eval_view(8), rows, np.zeros(2, np.uint64), np.ones((2, 2), np.int64))
    assert planned.padded.tolist() == [False, True]
