"""Draws: each sample its own, the same in any batch, distributed as the policies say."""

import numpy as np
import pytest

from fasttrain.kernels.augment_program import Op, Program
from fasttrain.loading.augment.levels import LEVELS
from fasttrain.loading.augment.planning import Draws, plan_program
from fasttrain.loading.augment.policies import parse_policy
from fasttrain.loading.augment.settings import Augment
from fasttrain.loading.plan import plan_batch
from fasttrain.loading.views import train_view

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
POLICIES = [
    "rand-m9-n2-mstd0.5-inc1",
    "rand-tweights-n3",
    "original-mstd0.5",
    "augmix-m3-w3",
    "trivial",
    "3a",
    "corrupt-n2-s5",
]
EVERYTHING = {
    "transpose": 0.5,
    "grey": 0.2,
    "blur": {"prob": 0.4},
    "noise": {"prob": 0.4},
    "grid_shuffle": {"prob": 0.3},
    "erasing": {"prob": 0.5, "mode": "rand", "count": 2},
    "dropout": {"prob": 0.5, "size": 5},
}


def plan(count: int = 4000, epoch: int = 0, seed: int = 0, size: int = 32, **settings: object) -> Program:
    augment = Augment.model_validate(settings)
    return plan_program(augment, np.arange(count, dtype=np.uint64), size, seed, epoch, mean=MEAN, std=STD)


@pytest.mark.parametrize("policy", POLICIES)
def test_no_two_samples_share_their_parameters_and_no_two_epochs(policy: str) -> None:
    first, second, third = plan(policy=policy), plan(policy=policy, epoch=1), plan(policy=policy, seed=1)
    for other in (second, third):
        assert (first.operations != other.operations).any() and not np.array_equal(first.seeds, other.seeds)
    assert len(np.unique(first.seeds)) == len(first)
    rows = np.concatenate([first.operations, first.arguments.reshape(len(first), -1)], 1)
    # Some operations have no parameters, so that equal rows exist; but never in long runs.
    assert (rows[1:] == rows[:-1]).all(1).mean() < (0.35 if policy == "3a" else 0.15)
    if policy.startswith("rand-m9"):
        used = first.operations[:, 0] == Op.SATURATION
        assert len(np.unique(first.arguments[used, 0, 0])) > 0.5 * used.sum()


@pytest.mark.parametrize("policy", POLICIES)
def test_plans_do_not_depend_on_the_batch(policy: str) -> None:
    view = train_view(32, color_jitter=(0.4, 0.4, 0.4, 0.1), augment={"policy": policy, **EVERYTHING})
    keys = np.random.default_rng(0).integers(0, 2**63, 60).astype(np.uint64)
    sizes = np.full((60, 2), 50)
    whole = plan_batch(view, np.arange(60), keys, sizes, 3, 2).program
    assert whole is not None
    for start in range(0, 60, 7):
        part = slice(start, start + 7)
        piece = plan_batch(view, np.arange(60)[part], keys[part], sizes[part], 3, 2).program
        assert piece is not None
        np.testing.assert_array_equal(piece.operations, whole.operations[part])
        np.testing.assert_array_equal(piece.arguments, whole.arguments[part])
        np.testing.assert_array_equal(piece.seeds, whole.seeds[part])


def test_rand_draws_its_operations_alike_and_applies_half_of_them() -> None:
    program = plan(20_000, policy="rand-m9-n2-mstd0.5-inc1")
    applied = program.operations != Op.NOTHING
    assert np.abs(applied.mean(0) - 0.5).max() < 0.015
    counts = np.bincount(program.operations[applied], minlength=32) / applied.sum()
    expected = np.zeros(32)
    for name in parse_policy("rand-inc1").choices:
        expected[LEVELS[name][0]] += 1 / 15
    np.testing.assert_allclose(counts, expected, atol=0.008)


def test_magnitudes_have_their_noise_and_bounds() -> None:
    program = plan(20_000, policy="rand-m9-n1-p1-mstd0.5")
    brightness = program.arguments[program.operations[:, 0] == Op.BRIGHTNESS, 0, 0]
    level = (brightness - 0.1) / 1.8 * 10
    assert abs(np.median(level) - 9) < 0.05 and abs(np.quantile(level, 0.159) - 8.5) < 0.06 and level.max() <= 10.0001
    uniform = plan(20_000, policy="rand-m8-n1-p1-mstd101")
    level = (uniform.arguments[uniform.operations[:, 0] == Op.BRIGHTNESS, 0, 0] - 0.1) / 1.8 * 10
    np.testing.assert_allclose(np.quantile(level, [0.25, 0.5, 0.75]), [2, 4, 6], atol=0.35)


def test_signs_are_fair() -> None:
    program = plan(20_000, policy="rand-m9-n1-p1-inc1")
    sheared = program.arguments[(program.operations[:, 0] == Op.AFFINE) & (program.arguments[:, 0, 1] != 0), 0, 1]
    assert abs((sheared > 0).mean() - 0.5) < 0.04


def test_weighted_choices_are_never_the_same_twice() -> None:
    program = plan(policy="rand-m9-n2-p1-tweights")
    assert (program.operations != Op.NOTHING).all()
    plain = ~np.isin(program.operations, [Op.AFFINE])
    twice = plain.all(1) & (program.operations[:, 0] == program.operations[:, 1])
    assert not twice.any()
    shares = (program.operations[:, 0] == Op.AFFINE).mean()
    assert abs(shares - 9 / 10.1) < 0.03  # rotations, shears and translations weigh 9 of 10.1


def test_a_mixture_has_weights_that_add_up() -> None:
    program = plan(policy="augmix-m3-w3")
    chains = program.operations == Op.MIX_CHAIN
    assert (chains.sum(1) == 3).all()
    weights = program.arguments[..., 0][chains].reshape(-1, 3)
    np.testing.assert_allclose(weights.sum(1), 1, atol=1e-6)
    np.testing.assert_allclose(weights.mean(0), 1 / 3, atol=0.02)
    np.testing.assert_allclose(weights.var(0), 1 / 18, atol=0.005)  # Dirichlet(1, 1, 1)
    share = program.arguments[..., 0][program.operations == Op.MIX_END]
    np.testing.assert_allclose(np.quantile(share, [0.1, 0.5, 0.9]), [0.1, 0.5, 0.9], atol=0.03)  # Beta(1, 1)
    lengths = (~np.isin(program.operations[:, 1:4], [Op.NOTHING])).sum(1)
    np.testing.assert_allclose(np.bincount(lengths)[1:] / len(program), 1 / 3, atol=0.03)


def test_corruptions_are_drawn_alike_with_those_severities() -> None:
    from fasttrain.loading.augment.corruptions import CORRUPTIONS

    program = plan(11_000, policy="corrupt-n1-s2")
    share = np.bincount(program.operations[:, 0], minlength=32) / len(program)
    for operation, _ in CORRUPTIONS.values():
        assert abs(share[operation] - 1 / 11) < 0.012
    assert abs(share[Op.NOTHING] - 1 / 11) < 0.012
    jpeg = program.arguments[program.operations[:, 0] == Op.JPEG, 0, 0]
    assert sorted(np.unique(jpeg).tolist()) == [18, 25] and abs((jpeg == 25).mean() - 0.5) < 0.06


def test_erasing_keeps_to_its_bounds_as_timms() -> None:
    program = plan(20_000, size=64, erasing={"prob": 0.3, "mode": "rand"})
    used = program.operations[:, 0] == Op.ERASE
    assert abs(used.mean() - 0.3) < 0.015
    top, left, tall, wide, noise, *colour = program.arguments[used, 0].T
    assert (top >= 0).all() and (left >= 0).all() and (top + tall <= 64).all() and (left + wide <= 64).all()
    share, aspect = tall * wide / 64**2, tall / wide
    assert 0.01 < share.min() < 0.03 and 0.3 < share.max() < 0.36
    assert 0.24 < aspect.min() < 0.4 and 2.6 < aspect.max() < 4.2
    assert (noise == 0).all()
    values = np.stack(colour)
    np.testing.assert_allclose(np.median(values, 1), 255 * np.array(MEAN), atol=3)
    assert (values.min() >= 0) and (values.max() <= 255) and 50 < values[0].std() < 60
    several = plan(500, size=64, erasing={"prob": 1.0, "count": 3, "mode": "pixel"})
    assert several.operations.shape[1] == 3 and (several.arguments[..., 4] == 1).all()


def test_dropout_has_its_holes() -> None:
    program = plan(500, size=64, dropout={"prob": 1.0, "holes": 4, "size": 9})
    assert program.operations.shape[1] == 4 and (program.arguments[..., 2:4] == 9).all()
    assert program.arguments[..., :2].min() == 0 and program.arguments[..., :2].max() == 55
    np.testing.assert_allclose(program.arguments[0, 0, 5:], 255 * np.array(MEAN), rtol=1e-5)


def test_probabilities() -> None:
    program = plan(20_000, transpose=0.3, grey=0.2, blur={"prob": 0.4}, noise={"prob": 0.1}, grid_shuffle={"prob": 0.6})
    shares = (program.operations != Op.NOTHING).mean(0)
    np.testing.assert_allclose(shares, [0.3, 0.2, 0.4, 0.1, 0.6], atol=0.012)
    assert program.operations.max(0).tolist() == [Op.AFFINE, Op.SATURATION, Op.BLUR, Op.NOISE, Op.GRID_SHUFFLE]
    sigma, deviation = program.arguments[:, 2, 0], program.arguments[:, 3, 0]
    assert 0.1 <= sigma.min() < 0.12 and 1.98 < sigma.max() <= 2.0
    assert np.sqrt(10) <= deviation.min() + 1e-5 and deviation.max() <= np.sqrt(50) + 1e-5


def test_normals_are_normal() -> None:
    draws = Draws(0, 0, np.arange(20_000, dtype=np.uint64))
    values = draws.normals(40)
    np.testing.assert_allclose(values.mean(1), 0, atol=0.03)
    np.testing.assert_allclose(values.std(1), 1, atol=0.03)
    assert np.abs(np.corrcoef(values) - np.eye(4)).max() < 0.03
    np.testing.assert_allclose(np.quantile(values, [0.023, 0.841]), [-2, 1], atol=0.05)


def test_an_inactive_view_has_no_program() -> None:
    view = train_view(32, color_jitter=0.4)
    planned = plan_batch(view, np.arange(3), np.arange(3, dtype=np.uint64), np.full((3, 2), 50))
    assert planned.program is None and planned.jitter is not None
    active = plan_batch(
        train_view(32, color_jitter=0.4, augment={"grey": 0.1}),
        np.arange(3),
        np.arange(3, dtype=np.uint64),
        np.full((3, 2), 50),
    )
    assert active.jitter is None and active.program is not None
    assert set(np.unique(active.program.operations[:, :4]).tolist()) <= {
        Op.NOTHING,
        Op.BRIGHTNESS,
        Op.CONTRAST,
        Op.SATURATION,
    }
