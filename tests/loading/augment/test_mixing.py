"""Mixers of batches, beside timm's Mixup on the same shares."""

import numpy as np
import pytest
import torch
from timm.data.mixup import Mixup, mixup_target, rand_bbox

from fasttrain.base.errors import ConfigError
from fasttrain.kernels import mixing as kernels
from fasttrain.loading.augment import mixing
from fasttrain.loading.augment.mixing import Mixer, Mixing, plan_mix
from fasttrain.loading.batch import Batch, MaskedBatch

CLASSES = 5


def batch(count: int = 8, missing: tuple[int, ...] = (), size: int = 16) -> Batch:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand((count, size, size, 3), generator=generator).permute(0, 3, 1, 2)
    valid = torch.ones(count, dtype=torch.bool)
    valid[list(missing)] = False
    labels = torch.arange(count) % CLASSES
    labels[list(missing)] = -1
    return Batch(pixels, labels, torch.arange(count), valid)


def masked(given: Batch) -> MaskedBatch:
    """With squares of class 2 (and one of class 1) on class 0; a row counts for nothing."""
    masks = torch.zeros((len(given.labels), *given.images.shape[2:]), dtype=torch.uint8)
    for number in range(len(masks)):
        masks[number, number : number + 7, 3:12] = 1 + (number > 0)
    masks[:, 5] = 255
    return MaskedBatch(*given, masks)


def mixed(settings: dict[str, object], given: Batch, step: int = 0, **how: object) -> tuple[Batch, torch.Tensor | None]:
    mixer = Mixer(Mixing.model_validate(settings), CLASSES, **how)  # type: ignore[arg-type]
    return mixer(given._replace(images=given.images.clone(memory_format=torch.preserve_format)), step)


SETTINGS = [
    {"mixup": 0.8},
    {"cutmix": 1.0},
    {"mixup": 0.8, "cutmix": 1.0, "mix_mode": "elem"},
    {"mixup": 0.8, "cutmix": 1.0, "mix_mode": "pair"},
    {"cutmix_minmax": (0.3, 0.7), "mix_mode": "elem"},
    {"spectral": {"prob": 1.0}},
    {"spatial": {"prob": 1.0}},
    {"fourier": {"prob": 1.0}},
    {"style": {"prob": 1.0}},
]


@pytest.mark.parametrize("settings", SETTINGS)
def test_every_image_changes_but_masked_ones_and_their_partners(settings: dict[str, object]) -> None:
    given = masked(batch(missing=(2,))) if "spatial" in settings else batch(missing=(2,))
    result, targets = mixed(settings, given)
    changed = (result.images - given.images).abs().flatten(1).amax(1) > 1e-6
    assert not changed[[2, 5]].any() and changed[[0, 1, 3, 4, 6, 7]].float().mean() > 0.6
    assert result.images.is_contiguous(memory_format=torch.channels_last)
    assert result.labels is given.labels and result.valid is given.valid
    if "fourier" in settings or "style" in settings:
        assert targets is None
        return
    assert targets is not None and targets.dtype == torch.float32
    torch.testing.assert_close(targets.sum(1), torch.ones(8))
    assert targets[5, given.labels[5]] == 1


@pytest.mark.parametrize("mode", ["batch", "pair", "elem"])
@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_images_and_targets_are_timms(mode: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """timm, given our shares and boxes, makes the same of the batch."""
    settings = {kind: 1.0, "mix_mode": mode}
    given = batch()
    result, targets = mixed(settings, given, step=3, smoothing=0.1)
    plan = plan_mix(Mixing.model_validate(settings), 8, 16, 16, 0, 3)
    theirs = Mixup(
        mixup_alpha=float(kind == "mixup"),
        cutmix_alpha=float(kind == "cutmix"),
        mode=mode,
        label_smoothing=0.1,
        num_classes=CLASSES,
    )
    count = {"batch": 1, "pair": 4, "elem": 8}[mode]
    cut = np.full(count, kind == "cutmix")
    monkeypatch.setattr(theirs, "_params_per_elem", lambda n: (plan.shares[:n].copy(), cut))
    monkeypatch.setattr(theirs, "_params_per_batch", lambda: (float(plan.shares[0]), kind == "cutmix"))
    boxes = iter([(tuple(box), share) for box, share in zip(plan.boxes.tolist(), plan.shares.tolist(), strict=True)])
    monkeypatch.setattr("timm.data.mixup.cutmix_bbox_and_lam", lambda *a, **k: next(boxes))
    images, expected = theirs(given.images.clone(), given.labels)
    torch.testing.assert_close(result.images, images, atol=1e-6, rtol=0)
    torch.testing.assert_close(targets, expected.float(), atol=1e-6, rtol=0)


def test_boxes_are_timms(monkeypatch: pytest.MonkeyPatch) -> None:
    shares, draw = np.random.default_rng(0).uniform(0, 1, 200), np.random.default_rng(1).uniform(0, 1, (4, 200))
    ours = mixing._boxes(Mixing(cutmix=1.0), shares, draw, 30, 50)
    for share, (y, x), box in zip(shares, draw[:2].T, ours.tolist(), strict=True):
        places = iter([int(y * 30), int(x * 50)])
        monkeypatch.setattr(np.random, "randint", lambda *a, places=places, **k: next(places))
        assert [int(side) for side in rand_bbox((3, 30, 50), share)] == box


def test_shares_are_corrected_by_what_was_cut() -> None:
    for step in range(20):
        plan = plan_mix(Mixing(cutmix=1.0), 6, 17, 23, 0, step)
        top, bottom, left, right = plan.boxes[0]
        assert plan.shares[0] == pytest.approx(1 - (bottom - top) * (right - left) / (17 * 23))


def test_draws_are_distributed_as_they_should() -> None:
    many = 4000
    plan = plan_mix(Mixing(mixup=0.4, cutmix=1.0, mix_mode="elem", mix_prob=0.7, switch_prob=0.3), many, 224, 224, 0, 0)
    active = plan.shares < 1
    assert abs(active.mean() - 0.7) < 0.03 and abs(plan.cut.mean() - 0.21) < 0.02
    blend = plan.shares[active & ~plan.cut]
    reference = np.random.default_rng(0).beta(0.4, 0.4, 100_000)
    np.testing.assert_allclose(np.quantile(blend, [0.1, 0.3, 0.7]), np.quantile(reference, [0.1, 0.3, 0.7]), atol=0.05)
    minmax = plan_mix(Mixing(cutmix_minmax=(0.25, 0.5), mix_mode="elem"), many, 100, 200, 0, 0).boxes
    tall, wide = minmax[:, 1] - minmax[:, 0], minmax[:, 3] - minmax[:, 2]
    assert (tall.min(), tall.max(), wide.min(), wide.max()) == (25, 49, 50, 99)
    assert minmax[:, 0].min() == 0 and minmax[:, 1].max() >= 98
    images = plan_mix(Mixing(fourier={"prob": 0.3}, style={"prob": 0.6}), many, 8, 8, 0, 0)  # type: ignore[arg-type]
    assert abs((images.amplitudes > 0).mean() - 0.3) < 0.03 and abs(images.styled.mean() - 0.6) < 0.03


def test_a_batch_has_one_draw_a_pair_one_of_its_own_an_image_another() -> None:
    for mode, distinct in (("batch", 1), ("pair", 4), ("elem", 8)):
        plan = plan_mix(Mixing(mixup=1.0, mix_mode=mode), 8, 8, 8, 0, 0)  # type: ignore[arg-type]
        assert len(np.unique(plan.shares)) == distinct
    pair = plan_mix(Mixing(mixup=1.0, mix_mode="pair"), 8, 8, 8, 0, 0).shares
    np.testing.assert_array_equal(pair, pair[::-1])


def test_steps_ranks_and_seeds_differ_and_the_same_repeat() -> None:
    given = batch()
    for settings in ({"mixup": 1.0}, {"cutmix": 1.0, "mix_mode": "elem"}, {"spectral": {"prob": 1.0}}):
        first = mixed(settings, given, step=1)[0].images
        assert torch.equal(first, mixed(settings, given, step=1)[0].images)
        for other in ({"step": 2}, {"step": 1, "rank": 1}, {"step": 1, "seed": 1}):
            assert not torch.equal(first, mixed(settings, given, **other)[0].images)  # type: ignore[arg-type]


def test_styles_are_in_the_space_of_the_pixels() -> None:
    """The normalisation is undone before colours move, so that it makes no difference."""
    given = batch()
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.3, 0.25)
    shift, scale = (torch.tensor(values).view(1, 3, 1, 1) for values in (mean, std))
    for settings in ({"fourier": {"prob": 1.0}}, {"style": {"prob": 1.0}}):
        plain = mixed(settings, given)[0].images
        normal = given._replace(images=((given.images - shift) / scale))
        again = mixed(settings, normal, mean=mean, std=std)[0].images * scale + shift
        torch.testing.assert_close(plain, again, atol=2e-4, rtol=0)


def test_targets_without_mixing_are_smoothed_labels() -> None:
    given = batch()
    result, targets = mixed({"mixup": 1.0, "mix_prob": 0.0}, given, smoothing=0.2)
    assert torch.equal(result.images, given.images)
    torch.testing.assert_close(targets, mixup_target(given.labels, CLASSES, 1.0, 0.2))


def test_several_views_are_refused() -> None:
    given = batch()
    with pytest.raises(ConfigError, match="several views"):
        mixed({"mixup": 1.0}, given._replace(images=torch.stack([given.images] * 2)))


def test_spatial_mixing_is_the_papers_sum_and_labels_go_by_the_object() -> None:
    given = masked(batch())
    result, targets = mixed({"spatial": {"prob": 1}}, given, step=2, smoothing=0.1)
    plan = plan_mix(Mixing.model_validate({"spatial": {"prob": 1}}), 8, 16, 16, 0, 2)
    front, back = plan.shares[0], plan.others[0]
    assert plan.kind == "spatial" and (plan.shares == front).all() and abs(front - back) > 0.01
    x = given.images.numpy()
    m = ((given.masks == 1) | (given.masks == 2)).numpy()[:, None].astype(float)
    y, n = x[::-1], m[::-1]
    wanted = front * (x * m) + (1 - front) * (y * n) + back * (x * (1 - m)) + (1 - back) * (y * (1 - n))
    np.testing.assert_allclose(result.images.numpy(), wanted, atol=1e-6)
    hot = np.eye(CLASSES)[given.labels] * 0.9 + 0.1 / CLASSES
    assert targets is not None
    np.testing.assert_allclose(targets.numpy(), front * hot + (1 - front) * hot[::-1], atol=1e-6)
    assert not isinstance(result, MaskedBatch)


def test_each_batch_is_mixed_in_one_of_two_ways() -> None:
    both = Mixing.model_validate({"spatial": {"prob": 0.5}, "spectral": {"prob": 0.3}, "mixup": 1.0})
    plans = [plan_mix(both, 2, 8, 8, 0, step) for step in range(400)]
    kinds = [plan.kind for plan in plans]
    assert abs(kinds.count("spatial") - 200) < 30 and abs(kinds.count("spectral") - 120) < 28
    assert kinds.count("mixup") == 400 - kinds.count("spatial") - kinds.count("spectral")
    for kind in ("spatial", "spectral"):
        shares, others = np.transpose([(plan.shares[0], plan.others[0]) for plan in plans if plan.kind == kind])
        assert abs(shares.var() - 1 / 20) < 0.015 and abs(others.var() - 1 / 12) < 0.02  # Beta(2, 2), uniform
    with pytest.raises(ValueError, match=r"spatial.prob 0.8 and spectral.prob 0.5 .* more than 1 together"):
        Mixing.model_validate({"spatial": {"prob": 0.8}, "spectral": {"prob": 0.5}})


def test_a_batch_without_masks_is_not_mixed_by_them() -> None:
    with pytest.raises(ConfigError, match="the batch has none"):
        mixed({"spatial": {"prob": 0.5}, "spectral": {"prob": 0.5}}, batch())


def test_low_frequencies_of_all_are_ordinary_mixup() -> None:
    given = batch()
    settings = {"spectral": {"prob": 1, "ratio": 1}}
    result, _ = mixed(settings, given)
    share = torch.from_numpy(plan_mix(Mixing.model_validate(settings), 8, 16, 16, 0, 0).shares)
    plain = kernels.mix(given.images, torch.arange(7, -1, -1), share)
    torch.testing.assert_close(result.images, plain, atol=1e-5, rtol=0)


def test_each_way_can_be_looked_at_by_itself() -> None:
    many = Mixing.model_validate({"cutmix": 1.0, "spatial": {"prob": 0.2, "alpha": 3}, "fourier": {"prob": 0.1}})
    ways = many.ways()
    assert list(ways) == ["cutmix", "spatial", "fourier"]
    assert ways["spatial"] == Mixing.model_validate({"spatial": {"prob": 1, "alpha": 3}})
    assert plan_mix(ways["cutmix"], 4, 8, 8, 0, 0).kind == "cutmix"
