import math

import pytest
import torch
from timm.scheduler import CosineLRScheduler

from fasttrain.base.config import load_settings
from fasttrain.base.errors import ConfigError
from fasttrain.loading.batch import Batch
from fasttrain.models.create import create_model
from fasttrain.training.loop import Stepper
from fasttrain.training.monitor import LaggedLoss
from fasttrain.training.optimizers import create_optimizer, list_optimizers, parameter_groups
from fasttrain.training.schedule import Schedule, lr_share
from fasttrain.training.settings import OptimizerSettings, ScheduleSettings, TrainSettings


def test_the_cosine_agrees_with_timms_between_warm_up_and_the_end():
    model = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    # timm spreads the cosine over t_initial steps; ours reaches its end on the last step, hence the difference of 1
    theirs = CosineLRScheduler(optimizer, t_initial=99, lr_min=0.1, t_in_epochs=False)
    for step in range(100):
        theirs.step_update(step)
        if step < 99:
            assert lr_share(step, 100, 0, 0.1) == pytest.approx(optimizer.param_groups[0]["lr"])
    assert lr_share(99, 100, 0, 0.1) == pytest.approx(0.1)


def test_warm_up_rises_in_equal_steps_to_the_peak():
    shares = [lr_share(step, 50, 4, 0.0) for step in range(5)]
    assert shares == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    schedule = Schedule(ScheduleSettings(warmup_epochs=50), 1.0, steps_per_epoch=10, epochs=2)
    assert schedule.warmup_steps == 10  # never more than half of the run
    assert math.isclose(schedule.lr(19), 0.0, abs_tol=1e-12)


def test_vectors_are_not_decayed():
    model = create_model("test_vit", 3)
    decayed, plain = parameter_groups(model, 0.05)
    assert all(parameter.ndim > 1 for parameter in decayed["params"])
    named = {id(parameter): name for name, parameter in model.named_parameters()}
    names = {named[id(parameter)] for parameter in plain["params"]}
    assert "pos_embed" in names  # the model says so itself
    assert sum(len(group["params"]) for group in (decayed, plain)) == len(list(model.parameters()))


@pytest.mark.parametrize("name", list_optimizers())
def test_the_fused_step_equals_the_plain_one(name):
    settings = OptimizerSettings(name=name, lr=0.1, weight_decay=0.1)
    torch.manual_seed(0)
    ours, plain = torch.nn.Linear(5, 5), torch.nn.Linear(5, 5)
    plain.load_state_dict(ours.state_dict())
    reference = {
        "adamw": lambda groups: torch.optim.AdamW(groups, lr=0.1, foreach=False),
        "sgd": lambda groups: torch.optim.SGD(groups, lr=0.1, momentum=0.9, nesterov=True, foreach=False),
    }[name](parameter_groups(plain, 0.1))
    optimizer = create_optimizer(ours, settings)
    for _ in range(3):
        inputs = torch.randn(4, 5)
        for model, step in ((ours, optimizer), (plain, reference)):
            step.zero_grad()
            model(inputs).square().sum().backward()
            step.step()
    torch.testing.assert_close(ours.weight, plain.weight)
    torch.testing.assert_close(ours.bias, plain.bias)


def test_a_step_is_that_of_a_plain_loop_and_masked_samples_have_no_part_in_it():
    """Same loss, gradients, clipping and update as a few lines of torch over the valid samples."""
    torch.manual_seed(0)
    device = torch.device("cpu")
    ours = create_model("test_vit", 3, size=32)
    plain = create_model("test_vit", 3, size=32)
    plain.load_state_dict(ours.state_dict())
    settings = OptimizerSettings(lr=1e-3)
    stepper = Stepper(
        model=ours.train(),
        optimizer=create_optimizer(ours, settings),
        schedule=Schedule(ScheduleSettings(warmup_epochs=0, final_lr_share=1), 1e-3, 10, 1),
        ema=None,
        device=device,
        amp="off",
        label_smoothing=0.1,
        clip_norm=0.5,
        seed=0,
    )
    reference = torch.optim.AdamW(parameter_groups(plain.train(), settings.weight_decay), lr=1e-3)
    loss_sum = LaggedLoss(device)
    for step in range(4):
        images, labels = torch.randn(6, 3, 32, 32), torch.randint(0, 3, (6,))
        valid = torch.tensor([True, True, False, True, True, False])
        stepper.step(Batch(images, labels.where(valid, -1), labels, valid), step, loss_sum)
        # Other pixels under the mask must change nothing: this model has no batch statistics.
        loss = torch.nn.functional.cross_entropy(plain(images[valid]), labels[valid], label_smoothing=0.1)
        reference.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(plain.parameters(), 0.5)
        reference.step()
    for (name, mine), theirs in zip(ours.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=2e-5, msg=name)
    assert loss_sum.totals()[1] == 16


def test_contradictory_settings_are_refused():
    with pytest.raises(ConfigError, match="exclude each other"):
        load_settings(TrainSettings, {"data": "a", "weights": "w.pth", "pretrained": True})
    with pytest.raises(ConfigError, match=r"optimizer\.name"):
        load_settings(TrainSettings, {"data": "a", "optimizer": {"name": "adam"}})
