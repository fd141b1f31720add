import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fasttrain.base.config import load_settings
from fasttrain.base.errors import ConfigError
from fasttrain.loading.loader import Loader
from fasttrain.loading.views import eval_view
from fasttrain.scores.table import ScoreTable
from fasttrain.training.distillation import distillation_loss, open_teacher
from fasttrain.training.run import train
from fasttrain.training.settings import DistillSettings, TrainSettings


def test_the_loss_is_the_divergence_of_softened_probabilities():
    torch.manual_seed(0)
    student, teacher = torch.randn(5, 4), torch.randn(5, 4)
    p, q = F.softmax(teacher / 3, 1), F.softmax(student / 3, 1)
    expected = 9 * (p * (p / q).log()).sum(1)
    torch.testing.assert_close(distillation_loss(student, teacher, 3.0), expected)
    # log-probabilities stand for their logits
    torch.testing.assert_close(distillation_loss(student, teacher.log_softmax(1), 3.0), expected)
    torch.testing.assert_close(distillation_loss(student, student, 1.0), torch.zeros(5))


@pytest.fixture
def loader(colour_tree):
    with Loader(colour_tree, 4, view=eval_view(16)) as opened:
        yield opened


def table_of(loader, path, classes=None, drop=0):
    ids = loader.string_ids(loader.rows)[drop:]
    scores = np.random.default_rng(0).normal(size=(len(ids), 3)).astype(np.float32)
    order = np.random.default_rng(1).permutation(len(ids))
    table = ScoreTable([ids[i] for i in order], scores[order], classes or ["green", "red", "blue"], "logits")
    table.write(path)
    return scores


def test_a_tables_scores_are_found_by_id_and_class(loader, tmp_path):
    path = tmp_path / "teacher.arrow"
    scores = table_of(loader, path)
    teacher = open_teacher(DistillSettings(teacher=str(path)), loader, 16, "off")
    found = teacher(torch.empty(3, 3, 16, 16), torch.tensor([5, 0, -1]))
    blue_green_red = torch.from_numpy(scores[[5, 0]][:, [2, 0, 1]])
    torch.testing.assert_close(found[:2].float(), blue_green_red.log_softmax(1), atol=2e-3, rtol=2e-3)
    assert torch.isfinite(found).all()


def test_a_table_that_does_not_fit_is_refused(loader, tmp_path):
    path = tmp_path / "teacher.arrow"
    table_of(loader, path, drop=2)
    with pytest.raises(ConfigError, match="no scores of 2 training samples: "):
        open_teacher(DistillSettings(teacher=str(path)), loader, 16, "off")
    table_of(loader, path, classes=["green", "red", "pink"])
    with pytest.raises(ConfigError, match="has other classes"):
        open_teacher(DistillSettings(teacher=str(path)), loader, 16, "off")


def test_a_student_learns_what_its_teacher_knows_from_scores_alone(colour_tree, tmp_path):
    def settings(name, **changes):
        values = {
            "data": str(colour_tree), "val": str(colour_tree), "model": "test_resnet", "out": str(tmp_path / name),
            "epochs": 10, "batch_size": 6, "size": 32, "device": "cpu", "optimizer": {"lr": 5e-3},
        }  # fmt: skip
        return load_settings(TrainSettings, values | changes)

    teacher = train(settings("teacher"))
    assert teacher.top1 > 0.9
    student = train(settings("student", distill={"teacher": str(teacher.run), "weight": 1.0}))
    assert student.top1 > 0.9  # of the labels it has seen nothing
    alone = train(settings("alone", epochs=1, distill={"teacher": str(teacher.run), "weight": 0.0}))
    plain = train(settings("plain", epochs=1))
    assert alone.top1 == plain.top1
