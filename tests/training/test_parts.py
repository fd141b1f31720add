import pytest
import torch

from fasttrain.base.config import load_settings
from fasttrain.base.errors import ConfigError
from fasttrain.loading.batch import Batch
from fasttrain.models.create import create_model
from fasttrain.training.loop import Stepper
from fasttrain.training.monitor import LaggedLoss
from fasttrain.training.optimizers import create_optimizer, parameter_groups
from fasttrain.training.schedule import Schedule
from fasttrain.training.schedule_settings import ScheduleSettings
from fasttrain.training.settings import OptimizerSettings, TrainSettings


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
    reference = torch.optim.AdamW(parameter_groups(plain.train(), 0.05), lr=1e-3)
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
    with pytest.raises(ConfigError, match=r"optimizer\.lr"):
        load_settings(TrainSettings, {"data": "a", "optimizer": {"lr": 0}})
