"""Adaptation in two processes takes the steps of one with the whole batch."""

from pathlib import Path

import pytest

from .launched import of_one_and_of_two, same_weights

JOB = Path(__file__).with_name("adaptation_steps.py")


@pytest.mark.thorough
def test_two_ranks_take_the_steps_of_one_with_the_whole_batch(tmp_path: Path) -> None:
    one, two = of_one_and_of_two(JOB, tmp_path)
    for key, value in one.items():
        assert two[key] == pytest.approx(value, rel=1e-3, abs=1e-3), key
    assert one["loss_distance"] > 0 and 0 < one["confident"] < 1
    for model in ("student", "teacher"):
        same_weights(tmp_path, f"{model}.safetensors", rtol=1e-3, atol=1e-4)
