"""A co-teacher in two processes takes the steps of one with the whole batch."""

from pathlib import Path

import pytest
import torch

from .launched import of_one_and_of_two, same_weights

JOB = Path(__file__).with_name("co_teacher_steps.py")


@pytest.mark.thorough
def test_two_ranks_take_the_steps_of_one_with_the_whole_batch(tmp_path: Path) -> None:
    one, two = of_one_and_of_two(JOB, tmp_path)
    assert two == pytest.approx(one, rel=1e-4)
    assert one["loss_consistency"] > 0
    student, teacher = (
        same_weights(tmp_path, f"{name}.safetensors", rtol=1e-4, atol=1e-5) for name in ("student", "teacher")
    )
    assert any(not torch.equal(student[key], teacher[key]) for key in student)
