"""A co-teacher in two processes takes the steps of one with the whole batch."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from .launched import told

JOB = Path(__file__).with_name("co_teacher_steps.py")


@pytest.mark.thorough
def test_two_ranks_take_the_steps_of_one_with_the_whole_batch(tmp_path: Path) -> None:
    figures = []
    for name, ranks in (("one", 1), ("two", 2)):
        (tmp_path / name).mkdir()
        figures.append(told(ranks, JOB, tmp_path / name))
    assert figures[1] == pytest.approx(figures[0], rel=1e-4)
    assert figures[0]["loss_consistency"] > 0
    models = []
    for model in ("student", "teacher"):
        one, two = (load_file(tmp_path / name / f"{model}.safetensors") for name in ("one", "two"))
        for key, tensor in one.items():
            torch.testing.assert_close(two[key], tensor, rtol=1e-4, atol=1e-5, msg=key)
        models.append(one)
    assert any(not torch.equal(models[0][key], models[1][key]) for key in models[0])
