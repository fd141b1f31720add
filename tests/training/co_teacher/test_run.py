"""What a step with a co-teacher learns, and whole runs of some."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fasttrain.base.errors import ConfigError, TrainingError
from fasttrain.base.runs import RunFolder
from fasttrain.loading.augment.mixing import Mixer, Mixing
from fasttrain.loading.batch import Batch, split_batch
from fasttrain.models.create import create_model
from fasttrain.models.weights import read_state_dict
from fasttrain.training.co_teacher.partners import with_partners_amplitudes
from fasttrain.training.co_teacher.settings import CoTeacherSettings
from fasttrain.training.co_teacher.stepper import CoTeacherStepper
from fasttrain.training.epochs import EpochTable
from fasttrain.training.losses.criterion import plain_criterion
from fasttrain.training.monitor import LaggedLoss
from fasttrain.training.run import train
from fasttrain.training.schedule import Schedule
from fasttrain.training.schedule_settings import ScheduleSettings
from fasttrain.training.settings import TrainSettings
from fasttrain.training.stepper import Stepper

from ..stepper_cases import CPU, random_batch

Make = Callable[..., TrainSettings]
RATE = 0.1
CO_TEACHER = {"weight": 2.0, "domains": "folder", "ramp_epochs": 1, "alpha": 0.8}


def stepper_of(mixing: Mixer | None = None, micro_batch: int | None = None, **settings: Any) -> CoTeacherStepper:
    torch.manual_seed(0)
    module = create_model("test_vit", 3, size=32).train()
    optimizer = torch.optim.SGD(module.parameters(), lr=RATE)
    constant = ScheduleSettings(kind="constant", warmup_epochs=0)
    return CoTeacherStepper(
        module=module,
        model=module,
        optimizer=optimizer,
        schedule=Schedule(constant, RATE, EpochTable.even(2, 5)),
        ema=None,
        device=CPU,
        amp="off",
        clip_norm=0.0,
        seed=4,
        loss=plain_criterion(0.0),
        mixing=mixing,
        micro_batch=micro_batch,
        settings=CoTeacherSettings.model_validate({"weight": 2.0, "ramp_epochs": 2, "alpha": 0.9, **settings}),
        mean=(0.5, 0.5, 0.5),
        std=(0.3, 0.3, 0.3),
    )


def a_batch() -> Batch:
    """Four pairs; one partner is masked."""
    torch.manual_seed(1)
    return random_batch(8, [True] * 5 + [False] + [True] * 2)


def divergence(teacher: torch.Tensor, student: torch.Tensor, temperature: float) -> torch.Tensor:
    p, q = ((scores / temperature).softmax(1) for scores in (teacher, student))
    return (p * (p / q).log()).sum(1)


@pytest.mark.parametrize("mixup", [0.0, 1.0])
def test_a_step_is_that_of_the_published_loss(mixup: float) -> None:
    mixing = Mixer(Mixing(mixup=mixup), 3) if mixup else None
    stepper = stepper_of(mixing)
    with torch.no_grad():  # a teacher that is not the student
        for weight in stepper.mean_teacher.module.parameters():
            weight += 0.02 * torch.randn_like(weight)
    before = {name: tensor.clone() for name, tensor in stepper.mean_teacher.state_dict().items()}
    teacher = stepper.mean_teacher.module
    torch.manual_seed(0)
    plain = create_model("test_vit", 3, size=32).train()
    batch, loss_sum = a_batch(), LaggedLoss(CPU)
    moved = with_partners_amplitudes(batch, 0.2, (0.5,) * 3, (0.3,) * 3, 4, 2)
    views = [batch.images.clone(), moved]
    targets = F.one_hot(batch.labels.clamp(min=0), 3).float()
    if mixing is not None:
        mixed = [mixing(batch._replace(images=images), 2) for images in views]
        views, targets = [part.images for part, _ in mixed], mixed[0][1]
        assert torch.equal(mixed[0][1], mixed[1][1])
    taught = [teacher(images).detach() for images in views]

    stepper.step(batch._replace(images=batch.images.clone()), 2, loss_sum)  # the first step of the second epoch

    said = [plain(images) for images in views]
    hard = [-(targets * scores.log_softmax(1)).sum(1) for scores in said]
    weight = 2 * np.exp(-5 * (1 - 1 / 2) ** 2)
    consistency = divergence(taught[0], said[1], 10) + divergence(taught[1], said[0], 10)
    losses = (0.5 * hard[0] + 0.5 * hard[1] + weight * consistency)[batch.valid]
    total, samples = loss_sum.totals().tolist()
    assert samples == 7 and total / samples == pytest.approx(losses.mean().item(), rel=1e-5)
    losses.mean().backward()
    with torch.no_grad():
        for parameter in plain.parameters():
            parameter -= RATE * parameter.grad
    for (name, ours), other in zip(stepper.module.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours, other, rtol=1e-4, atol=1e-5, msg=name)
    kept = min(1 - 1 / 3, 0.9)
    for name, tensor in stepper.mean_teacher.state_dict().items():
        torch.testing.assert_close(tensor, torch.lerp(before[name], stepper.module.state_dict()[name], 1 - kept))
    figures = stepper.take_figures()
    parts = {"loss_original": hard[0], "loss_amplitudes": hard[1], "loss_consistency": consistency}
    for name, values in parts.items():
        assert figures[name] == pytest.approx(values[batch.valid].mean().item(), rel=1e-4), name
    assert figures["consistency_weight"] == pytest.approx(weight)


def test_the_weight_rises_from_the_runs_own_first_epoch() -> None:
    chosen = CoTeacherSettings(weight=2)
    rising = [2 * np.exp(-5 * (1 - min(epoch, 5) / 5) ** 2) for epoch in range(8)]
    np.testing.assert_allclose([chosen.weight_of(epoch) for epoch in range(8)], rising)
    assert CoTeacherSettings(weight=2, ramp_epochs=0).weight_of(0) == 2


def test_parts_of_a_batch_add_up_to_the_whole() -> None:
    """Of images that are mixed, too: pairs are made before the batch is taken apart."""
    found = []
    for micro_batch in (None, 3):
        stepper = stepper_of(Mixer(Mixing(mixup=1.0), 3), micro_batch)
        stepper.step(a_batch(), 2, LaggedLoss(CPU))
        found.append((stepper.module, stepper.take_figures()))
    for one, other in zip(found[0][0].parameters(), found[1][0].parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    assert found[1][1] == pytest.approx(found[0][1], rel=1e-5)


def test_consistency_and_amplitudes_each_have_an_effect() -> None:
    weights = []
    for settings in ({}, {"weight": 4.0}, {"ratio": 0.9}, {"temperature": 1.0}):
        stepper = stepper_of(**settings)
        with torch.no_grad():
            for weight in stepper.mean_teacher.module.parameters():
                weight += 0.05
        stepper.step(a_batch(), 8, LaggedLoss(CPU))
        weights.append(torch.cat([weight.detach().flatten() for weight in stepper.module.parameters()]))
    for other in weights[1:]:
        assert (other - weights[0]).abs().max() > 1e-6


def weights_of(settings: TrainSettings, resume: bool = False) -> tuple[dict[str, torch.Tensor], ...]:
    """Student, teacher and mean of the student's epochs at the end of a run."""
    run = train(settings, resume=resume).run
    return tuple(read_state_dict(run / f"{name}.safetensors") for name in ("last", "teacher", "swa"))


def test_two_halves_of_a_run_are_the_whole(
    small_run: Make, masked_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more: dict[str, Any] = {
        "data": str(masked_tree),
        "val": str(masked_tree),
        "batch_size": 4,
        "epochs": 2,
        "micro_batch": 4,
        "swa_start": 1,
        "threads": 1,
        "co_teacher": CO_TEACHER,
        "augment": {"spatial": {"prob": 1}},
        "winograd": "off",
    }
    whole = weights_of(small_run("whole", **more))
    seen: list[np.ndarray] = []
    real = Stepper.step

    def step(self: Stepper, batch: Batch, *arguments: Any) -> None:
        real(self, batch, *arguments)
        seen.append(batch.ids.numpy())
        if len(seen) == 8:  # in the midst of the second epoch
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patched:
        patched.setattr(Stepper, "step", step)
        with pytest.raises(TrainingError, match="stopped by SIGTERM"):
            train(small_run("stopped", **more))
    resumed = weights_of(small_run("stopped", **more), resume=True)
    for ours, theirs in zip(resumed, whole, strict=True):
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    for first, second in ((0, 1), (0, 2), (1, 2)):
        assert any(not torch.equal(whole[first][key], whole[second][key]) for key in whole[0])
    partners = np.concatenate([ids[4:] for ids in seen[:6]])
    assert (np.concatenate([ids[:4] for ids in seen[:6]]) != partners).mean() > 0.7
    records = [RunFolder(tmp_path / name).read_metrics() for name in ("stopped", "whole")]
    assert {"loss_consistency", "consistency_weight", "val_top1", "val_top1_teacher"} <= records[0][-1].keys()
    for ours, theirs in zip(*records, strict=True):
        same = [key for key in theirs if key not in ("images_per_s", "data_wait_fraction")]
        assert [ours[key] for key in same] == [theirs[key] for key in same]


def test_the_teacher_may_be_what_is_kept(small_run: Make) -> None:
    more = {"epochs": 1, "threads": 1, "winograd": "off"}
    run = train(small_run("student", **more, co_teacher=CO_TEACHER)).run
    kept = train(small_run("teacher", **more, co_teacher={**CO_TEACHER, "keep": "teacher"})).run
    for ours, theirs in (("last", "teacher"), ("student", "last")):
        one, other = read_state_dict(kept / f"{ours}.safetensors"), read_state_dict(run / f"{theirs}.safetensors")
        assert all(torch.equal(one[key], other[key]) for key in other)


def test_parts_of_a_batch_can_be_tried_for_their_size() -> None:
    stepper = stepper_of(Mixer(Mixing(mixup=1.0), 3))
    for size in (8, 3, 1):
        stepper.try_batch(split_batch(a_batch(), size)[0])
    assert all(weight.grad is not None for weight in stepper.module.parameters())


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"ema": 0.9}, "ema does not go with co_teacher"),
        ({"sam_rho": 0.1}, "sam_rho does not go with co_teacher"),
        ({"distill": {"teacher": "runs/a"}}, "distill.teacher does not go with co_teacher"),
        ({"loss": {"kind": "jsd"}}, "loss jsd does not go with co_teacher"),
        ({"co_teacher": {"ratio": 0.3}}, r"ratio means nothing to a run without co-teacher \(weight 0\)"),
    ],
)
def test_what_does_not_go_together_is_said(more: dict[str, Any], says: str, small_run: Make) -> None:
    with pytest.raises(ConfigError, match=says):
        small_run(**{"co_teacher": CO_TEACHER, **more})
