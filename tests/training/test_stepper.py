import copy

import pytest
import torch

from fasttrain.base.config import load_settings
from fasttrain.base.errors import ConfigError
from fasttrain.loading.batch import Batch
from fasttrain.models.create import create_model
from fasttrain.training import assemble
from fasttrain.training.classification import Classification
from fasttrain.training.epochs import EpochTable
from fasttrain.training.freezing import freeze
from fasttrain.training.monitor import LaggedLoss
from fasttrain.training.optimizers import create_optimizer, parameter_groups
from fasttrain.training.settings import OptimizerSettings, TrainSettings
from fasttrain.training.speed import compiled, set_precision

from .stepper_cases import CPU, make_stepper, random_batch


def assert_alike(ours, theirs, rtol=1e-4, atol=2e-5):
    for (name, mine), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=rtol, atol=atol, msg=lambda text, name=name: f"{name}: {text}")


def test_a_step_is_that_of_a_plain_loop_and_masked_samples_have_no_part_in_it():
    """Same loss, gradients, clipping and update as a few lines of torch over the valid samples."""
    torch.manual_seed(0)
    ours = create_model("test_vit", 3, size=32)
    plain = create_model("test_vit", 3, size=32)
    plain.load_state_dict(ours.state_dict())
    settings = OptimizerSettings(lr=1e-3)
    stepper = make_stepper(ours, create_optimizer(ours, settings), label_smoothing=0.1, clip_norm=0.5)
    reference = torch.optim.AdamW(parameter_groups(plain.train(), 0.05), lr=1e-3)
    loss_sum = LaggedLoss(CPU)
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
    assert_alike(ours, plain)
    assert loss_sum.totals()[1] == 16


def test_parts_of_a_batch_give_its_gradient_masked_samples_included():
    torch.manual_seed(0)
    whole = create_model("test_vit", 3, size=32)
    parts = copy.deepcopy(whole)
    losses = LaggedLoss(CPU), LaggedLoss(CPU)
    steppers = make_stepper(whole, clip_norm=1.0), make_stepper(parts, clip_norm=1.0, micro_batch=2)
    for step in range(3):
        batch = random_batch(7, [True, False, False, False, True, True, True])
        for stepper, loss in zip(steppers, losses, strict=True):
            stepper.step(batch, step, loss)
    assert_alike(whole, parts)
    torch.testing.assert_close(losses[0].totals(), losses[1].totals())


def test_sharpness_aware_steps_take_the_gradient_where_the_loss_is_higher():
    torch.manual_seed(0)
    ours = create_model("test_resnet", 3)
    plain, bare = copy.deepcopy(ours), copy.deepcopy(ours)
    stepper, optimizer = make_stepper(ours, sam_rho=0.5), torch.optim.SGD(plain.train().parameters(), lr=0.1)
    batch = random_batch()

    def gradient(model):
        model.zero_grad()
        torch.nn.functional.cross_entropy(model(batch.images), batch.ids).backward()
        return [parameter.grad.clone() for parameter in model.parameters()]

    climb = gradient(plain)
    length = torch.cat([entry.flatten() for entry in climb]).norm()
    for parameter, entry in zip(plain.parameters(), climb, strict=True):
        parameter.data += 0.5 * entry / length
    statistics = copy.deepcopy(dict(plain.named_buffers()))
    gradient(plain)
    for parameter, entry in zip(plain.parameters(), climb, strict=True):
        parameter.data -= 0.5 * entry / length
    optimizer.step()
    stepper.step(batch, 0, LaggedLoss(CPU))
    assert_alike(ours, plain)
    for name, buffer in ours.named_buffers():
        if "running" in name:  # those of the first pass alone
            torch.testing.assert_close(buffer, statistics[name], msg=name)
    make_stepper(bare).step(batch, 0, LaggedLoss(CPU))
    assert any(
        not torch.allclose(mine, other) for mine, other in zip(ours.parameters(), bare.parameters(), strict=True)
    )


def test_what_is_frozen_keeps_its_weights_and_its_statistics():
    torch.manual_seed(0)
    model = create_model("test_resnet", 3)
    before = copy.deepcopy(model.state_dict())
    count = freeze(model, ["conv1.*", "bn1.*", "layer1.*"])
    optimizer = torch.optim.SGD([entry for entry in model.parameters() if entry.requires_grad], lr=0.1)
    stepper = make_stepper(model, optimizer)
    stepper.train()
    for step in range(2):
        stepper.step(random_batch(), step, LaggedLoss(CPU))
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert count == sum(not parameter.requires_grad for parameter in model.parameters()) > 0
    assert not any(name.startswith(("conv1.", "bn1.", "layer1.")) for name in changed)
    assert {"fc.weight", "layer4.0.conv1.weight"} <= changed
    assert any("running_mean" in name for name in changed)
    with pytest.raises(ConfigError, match="no parameter matches 'blocks"):
        freeze(model, ["blocks.*"])
    with pytest.raises(ConfigError, match="nothing would learn"):
        freeze(model, ["*"])


def assembled(tmp_path, **changes):
    values = {"data": "a", "model": "test_resnet", "device": "cpu", "seed": 0, **changes}
    torch.manual_seed(0)
    table = EpochTable.even(10, 10)
    task = Classification(load_settings(TrainSettings, {"size": 32, **values}))
    return assemble.make_stepper(task, CPU, 3, None, table)


def test_the_average_of_statistics_or_their_last_values_are_kept(tmp_path):
    averages = {}
    for buffers in ("average", "copy"):
        stepper = assembled(tmp_path, ema=0.9, ema_buffers=buffers)
        stepper.train()
        for step in range(3):
            torch.manual_seed(step)
            stepper.step(random_batch(), step, LaggedLoss(CPU))
        own, averaged = dict(stepper.module.named_buffers()), dict(stepper.ema.module.named_buffers())
        averages[buffers] = torch.equal(own["bn1.running_mean"], averaged["bn1.running_mean"])
        assert not torch.equal(stepper.module.fc.weight, stepper.ema.module.fc.weight)
    assert averages == {"average": False, "copy": True}


def test_checkpointed_gradients_are_the_same(tmp_path):
    steppers = [assembled(tmp_path, model="test_vit", grad_checkpointing=wanted) for wanted in (False, True)]
    assert steppers[1].module.grad_checkpointing
    for stepper in steppers:
        torch.manual_seed(0)
        stepper.step(random_batch(pixels=160), 0, LaggedLoss(CPU))
    assert_alike(steppers[0].module, steppers[1].module, rtol=0, atol=1e-6)


def test_a_compiled_model_gives_the_same_step(tmp_path):
    torch.manual_seed(0)
    plain = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))
    fast = copy.deepcopy(plain)
    for stepper in (make_stepper(plain), make_stepper(fast, model=compiled(fast, "default"))):
        torch.manual_seed(1)
        stepper.step(random_batch(pixels=2), 0, LaggedLoss(CPU))
    assert_alike(plain, fast)


def test_impossible_settings_are_refused_before_the_first_step(tmp_path):
    with pytest.raises(ConfigError, match="fp16 needs a GPU"):
        assembled(tmp_path, amp="fp16")
    with pytest.raises(ConfigError, match="dla46_c knows no gradient checkpointing"):
        assembled(tmp_path, model="dla46_c", grad_checkpointing=True)


@pytest.mark.parametrize("mode", ["reduce-overhead", "max-autotune"])
def test_gradients_of_parts_are_not_added_up_in_memory_that_a_graph_overwrites(mode):
    values = {"data": "a", "compile": mode, "batch_size": 8}
    with pytest.raises(ConfigError, match=f"compile {mode} replays CUDA graphs.*take compile=default"):
        load_settings(TrainSettings, values | {"micro_batch": 4})
    assert load_settings(TrainSettings, values | {"micro_batch": 8}).compile == mode
    assert load_settings(TrainSettings, values | {"compile": "default", "micro_batch": 4}).micro_batch == 4


def test_the_precision_policy_is_set_as_stated():
    set_precision(False)
    assert torch.get_float32_matmul_precision() == "highest" and not torch.backends.cudnn.allow_tf32
    set_precision(True)
    assert torch.get_float32_matmul_precision() == "high" and torch.backends.cudnn.allow_tf32
