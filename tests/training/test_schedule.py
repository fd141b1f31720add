import itertools
import math

import pytest
import torch
from timm.scheduler import CosineLRScheduler, PolyLRScheduler, StepLRScheduler

from fasttrain.base.config import load_settings
from fasttrain.base.errors import ConfigError
from fasttrain.loading.per_epoch import EpochShape
from fasttrain.training.epochs import EpochTable
from fasttrain.training.schedule import Plateau, Schedule
from fasttrain.training.schedule_settings import KINDS, ScheduleSettings
from fasttrain.training.settings import TrainSettings


def shares(steps=100, steps_per_epoch=10, **settings):
    """The learning rate of each step of a run, as a share of the peak."""
    table = EpochTable.even(steps_per_epoch, steps // steps_per_epoch)
    schedule = Schedule(ScheduleSettings(**settings), 1.0, table)
    return [schedule.lr(step) for step in range(steps)]


def rates_of(scheduler_class, **arguments):
    optimizer = torch.optim.SGD(torch.nn.Linear(1, 1).parameters(), lr=1.0)
    scheduler = scheduler_class(optimizer, t_in_epochs=False, **arguments)
    rates = []
    for step in range(100):
        scheduler.step_update(step)
        rates.append(optimizer.param_groups[0]["lr"])
    return rates


def test_the_cosine_agrees_with_timms():
    # timm spreads the cosine over t_initial steps; ours reaches its end on the last step, hence the 99
    theirs = rates_of(CosineLRScheduler, t_initial=99, lr_min=0.1)
    ours = shares(warmup_epochs=0, final_lr_share=0.1)
    assert ours[:99] == pytest.approx(theirs[:99])
    assert ours[99] == pytest.approx(0.1)


def test_poly_and_step_agree_with_timms():
    theirs = rates_of(PolyLRScheduler, t_initial=99, power=0.9, lr_min=0.2)
    assert shares(kind="poly", warmup_epochs=0, final_lr_share=0.2)[:99] == pytest.approx(theirs[:99])
    theirs = rates_of(StepLRScheduler, decay_t=30, decay_rate=0.2)
    assert shares(kind="step", warmup_epochs=0, step_epochs=3, gamma=0.2) == pytest.approx(theirs)


def test_two_runs_go_one_way_by_their_spans():
    whole = shares(warmup_epochs=0)
    first = shares(60, warmup_epochs=0, span=(0, 0.6))
    second = shares(40, warmup_epochs=0, span=(0.6, 1))
    assert first + second == pytest.approx(whole, abs=0.01)
    assert first[-1] == pytest.approx(second[0]) and second[-1] == pytest.approx(0, abs=1e-9)
    with pytest.raises(ValueError, match="span is for schedules that fall smoothly"):
        ScheduleSettings(kind="step", span=(0, 0.5))
    with pytest.raises(ValueError, match="two rising shares"):
        ScheduleSettings(span=(0.5, 0.5))


def test_one_cycle_agrees_with_torchs():
    optimizer = torch.optim.SGD(torch.nn.Linear(1, 1).parameters(), lr=1.0)
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1.0, total_steps=101, cycle_momentum=False)
    rates = []
    for _ in range(100):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        theirs.step()
    # torch's peak lies at step 0.3 x 101 - 1, ours at 0.3 x 100
    assert shares(kind="onecycle") == pytest.approx(rates, abs=0.04)
    assert max(shares(kind="onecycle")) == shares(kind="onecycle")[30] == pytest.approx(1.0)
    assert shares(kind="onecycle")[0] == pytest.approx(1 / 25)


def test_linear_falls_in_equal_steps_and_constant_stays():
    line = shares(kind="linear", warmup_epochs=0, final_lr_share=0.01)
    differences = [before - after for before, after in itertools.pairwise(line)]
    assert differences == pytest.approx([0.01] * 99)
    assert shares(kind="constant", warmup_epochs=0) == [1.0] * 100


def test_milestones_and_multiples_of_1x_fall_by_tenths_where_they_say():
    falls = shares(kind="milestones", milestones=(2, 5), warmup_epochs=0)
    assert [falls[step] for step in (0, 19, 20, 49, 50, 99)] == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])
    twice = shares(240, kind="2x")
    assert twice[0] < twice[19] < 1.0  # two epochs of warm-up
    assert [twice[step] for step in (20, 139, 140, 199, 200, 239)] == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "onecycle"])
def test_warm_up_rises_in_equal_steps_to_the_peak(kind):
    assert shares(kind=kind, warmup_epochs=0.4)[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])


def test_warm_up_is_never_more_than_half_of_the_run():
    schedule = Schedule(ScheduleSettings(warmup_epochs=50), 1.0, EpochTable.even(10, 2))
    assert schedule.warmup_steps == 10
    assert math.isclose(schedule.lr(19), 0.0, abs_tol=1e-12)


def test_plateau_falls_when_the_training_loss_stays_and_remembers_it():
    schedule = Schedule(ScheduleSettings(kind="plateau", patience=1, warmup_epochs=0), 1.0, EpochTable.even(10, 10))
    for loss in (2.0, 1.0, 0.99999, 1.1):
        assert schedule.lr(50) == 1.0
        schedule.end_epoch(loss)
    assert schedule.lr(50) == pytest.approx(0.1)
    resumed = Schedule(ScheduleSettings(kind="plateau", patience=1, warmup_epochs=0), 1.0, EpochTable.even(10, 10))
    resumed.load_state_dict(schedule.state_dict())
    assert resumed.lr(50) == pytest.approx(0.1)
    for _ in range(2):
        assert resumed.lr(50) == pytest.approx(0.1)
        resumed.end_epoch(1.0)
    assert resumed.lr(50) == pytest.approx(0.01)


def test_plateau_agrees_with_torchs():
    losses = [3.0, 2.0, 2.0, 2.1, 1.9, 1.9, 1.9, 1.8, 1.8, 1.80001, 1.8, 1.8, 1.0]
    optimizer = torch.optim.SGD(torch.nn.Linear(1, 1).parameters(), lr=1.0)
    theirs, ours = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=1), Plateau(patience=1)
    for loss in losses:
        theirs.step(loss)
        ours.note(loss)
        assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1**ours.drops)


def test_groups_learn_at_their_share():
    optimizer = torch.optim.SGD([{"params": [torch.nn.Parameter(torch.zeros(1))], "lr_scale": 0.25}], lr=1.0)
    Schedule(ScheduleSettings(kind="constant", warmup_epochs=0), 2.0, EpochTable.even(1, 1)).apply(optimizer, 0)
    assert optimizer.param_groups[0]["lr"] == 0.5


UNEVEN = EpochTable(tuple(EpochShape(32, batch, 240 // batch) for batch in (8, 8, 24, 40, 40)))


def rates(kind, lr_with_batch="none", table=UNEVEN, **settings):
    schedule = Schedule(ScheduleSettings(kind=kind, **settings), 0.1, table, lr_with_batch)
    return [schedule.lr(step) for step in range(table.steps)]


@pytest.mark.parametrize(("rule", "power"), [("none", 0), ("linear", 1), ("sqrt", 0.5)])
def test_epochs_of_unlike_length_against_a_plain_loop(rule, power):
    """Warm-up and falls by epochs, the cosine by steps, all times what the batch size makes of it."""
    batches = [shape.batch_size for shape in UNEVEN.shapes for _ in range(shape.steps)]
    epochs = [epoch for epoch, shape in enumerate(UNEVEN.shapes) for _ in range(shape.steps)]
    assert UNEVEN.first == (0, 30, 60, 70, 76, 82) and UNEVEN.steps == len(batches) == 82
    factors = [(batch / 8) ** power for batch in batches]
    warm = 30 + 30 + 5  # two and a half epochs; the half run would be 41
    assert UNEVEN.steps_in(2.5) == warm
    rise = [0.1 * (step + 1) / 31 for step in range(30)]
    fall = [0.1 * 0.5 * (1 + math.cos(math.pi * step / 51)) for step in range(52)]
    expected = [rate * factor for rate, factor in zip(rise + fall, factors, strict=True)]
    assert rates("cosine", rule) == pytest.approx(expected, abs=1e-12)
    expected = [0.1 * 0.1 ** (epoch // 2) * factor for epoch, factor in zip(epochs, factors, strict=True)]
    assert rates("step", rule, warmup_epochs=0, step_epochs=2) == pytest.approx(expected)
    falls = [0.1 * 0.1 ** sum(epoch >= at for at in (1, 3)) for epoch in epochs]
    expected = [rate * factor for rate, factor in zip(falls, factors, strict=True)]
    assert rates("milestones", rule, warmup_epochs=0, milestones=(1, 3)) == pytest.approx(expected)


def test_equal_epochs_give_what_steps_alone_would():
    for epochs in (0, 0.25, 0.4, 1.3, 2.7, 9):
        assert EpochTable.even(5, 9).steps_in(epochs) == epochs * 5
    table = EpochTable.even(10, 3)
    assert [table.epoch_of(step) for step in (0, 9, 10, 29, 30)] == [0, 0, 1, 2, 3]
    assert table.changes() == [] and UNEVEN.changes() == [2, 3]


def test_work_goes_by_pixels():
    table = EpochTable((EpochShape(10, 4, 5), EpochShape(20, 2, 10)))  # 2000 and 8000 pixels
    assert [table.work_done(0, 0), table.work_done(0, 5), table.work_done(1, 0)] == pytest.approx([0, 0.2, 0.2])
    assert [table.work_done(1, 5), table.work_done(1, 10)] == pytest.approx([0.6, 1])


def test_a_multiple_of_1x_sets_the_length_of_the_run():
    assert load_settings(TrainSettings, {"data": "a", "schedule": {"kind": "2x"}}).epochs == 24
    assert load_settings(TrainSettings, {"data": "a", "epochs": 24, "schedule": {"kind": "2x"}}).epochs == 24
    with pytest.raises(ConfigError, match="2x is 24 epochs long; leave out --epochs"):
        load_settings(TrainSettings, {"data": "a", "epochs": 10, "schedule": {"kind": "2x"}})


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"kind": "cosinus"}, "known are cosine"), ({"kind": "0x"}, "known are"), ({"milestones": [3, 2]}, "rising")],
)
def test_wrong_schedules_are_refused(settings, words):
    with pytest.raises(ConfigError, match=words):
        load_settings(ScheduleSettings, settings)
