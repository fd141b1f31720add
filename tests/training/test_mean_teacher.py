"""The teacher: a moving average that moves, and answers equal images with equal bits."""

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fasttrain.base.errors import TrainingError
from fasttrain.training.mean_teacher import BatchNorm, MeanTeacher


class DropPath(nn.Module):
    """Stochastic depth as mmcv has it: a class of that name, of no common base."""

    def forward(self, x: Tensor) -> Tensor:
        return x * (torch.rand(len(x), 1, 1, 1) > 0.4) if self.training else x


class StubbornDropPath(nn.Module):
    """One that does not ask whether it is training."""

    def forward(self, x: Tensor) -> Tensor:
        return x * (torch.rand(len(x), 1, 1, 1) > 0.4)


class Guarded(nn.Module):
    """A functional dropout of a layer's own."""

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, 0.5, self.training)


class Noise(nn.Module):
    """Randomness that no name tells of."""

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.randn_like(x)


def network(*layers: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    first, norm = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6)
    return nn.Sequential(first, norm, *layers, nn.Conv2d(6, 2, 1))


def images() -> Tensor:
    return torch.randn(3, 3, 12, 12, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("batch_norm", ["average", "batch"])
@pytest.mark.parametrize("layer", [DropPath(), StubbornDropPath(), Guarded(), nn.Dropout2d(0.5), nn.AlphaDropout(0.5)])
def test_equal_images_have_equal_answers(layer: nn.Module, batch_norm: BatchNorm) -> None:
    student = network(layer).train()
    assert not torch.equal(student(images()), student(images()))
    teacher = MeanTeacher(student, batch_norm=batch_norm)
    teacher.module.train()  # whatever others do to it
    assert torch.equal(teacher(images()), teacher(images()))
    teacher.require_deterministic(images())
    assert not torch.equal(student(images()), student(images()))  # the student is left at it


@pytest.mark.parametrize("name", ["test_convnext", "test_efficientnet", "test_vit"])
def test_models_of_timm(name: str) -> None:
    options = {"img_size": 64} if "vit" in name else {}
    student = timm.create_model(name, num_classes=4, drop_rate=0.4, drop_path_rate=0.5, **options).train()
    pixels = torch.randn(4, 3, 64, 64)
    assert not torch.equal(student(pixels), student(pixels))
    teacher = MeanTeacher(student)
    teacher.require_deterministic(pixels)
    assert torch.equal(teacher(pixels), student.eval()(pixels))


def test_what_stays_random_is_an_error() -> None:
    with pytest.raises(TrainingError, match="answers to the same images differ"):
        MeanTeacher(network(Noise())).require_deterministic(images())


def test_it_follows_the_student() -> None:
    student = network()
    teacher = MeanTeacher(student, alpha=0.9)
    assert [teacher.decay(step) for step in (0, 1, 3, 9, 1000)] == [0.0, 0.5, 0.75, 0.9, 0.9]
    expected = {key: tensor.clone() for key, tensor in student.state_dict().items()}
    for step in range(4):
        with torch.no_grad():
            for tensor in (*student.parameters(), *student.buffers()):
                tensor.add_(1)
        before = teacher.module[0].weight.clone()
        teacher.update(student, step)
        assert not torch.equal(before, teacher.module[0].weight)
        for key, tensor in student.state_dict().items():
            share = 1 - teacher.decay(step)
            expected[key] = torch.lerp(expected[key], tensor, share) if tensor.is_floating_point() else tensor.clone()
    for key, tensor in teacher.state_dict().items():
        torch.testing.assert_close(tensor, expected[key])  # weights, statistics, and counters as they are
    assert not any(parameter.requires_grad for parameter in teacher.module.parameters())


def test_weights_that_layers_share_move_once() -> None:
    student = network()
    student.append(student[0])
    teacher = MeanTeacher(student, alpha=0.5)
    old = teacher.module[0].weight.clone()
    with torch.no_grad():
        student[0].weight.add_(1)
    teacher.update(student, 1)
    torch.testing.assert_close(teacher.module[0].weight, old + 0.5)


@pytest.mark.parametrize("batch_norm", ["average", "batch"])
def test_what_batch_norm_goes_by(batch_norm: BatchNorm) -> None:
    student = network()
    teacher = MeanTeacher(student, batch_norm=batch_norm)
    before = {key: tensor.clone() for key, tensor in teacher.state_dict().items()}
    one, all_ = teacher(images()[:1]), teacher(images())[:1]
    assert torch.allclose(one, all_, atol=1e-5) == (batch_norm == "average")
    for key, tensor in teacher.state_dict().items():
        assert torch.equal(tensor, before[key])  # looking changes nothing


def test_another_student_is_an_error() -> None:
    with pytest.raises(TrainingError, match="is in one of them alone"):
        MeanTeacher(network()).update(network(nn.Conv2d(6, 6, 1)), 0)
