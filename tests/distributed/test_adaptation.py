"""Adaptation in two processes takes the steps of one with the whole batch."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from .launched import told

JOB = Path(__file__).with_name("adaptation_steps.py")


@pytest.mark.thorough
def test_two_ranks_take_the_steps_of_one_with_the_whole_batch(tmp_path: Path) -> None:
    figures = []
    for name, ranks in (("one", 1), ("two", 2)):
        (tmp_path / name).mkdir()
        figures.append(told(ranks, JOB, tmp_path / name))
    for key, value in figures[0].items():
        assert figures[1][key] == pytest.approx(value, rel=1e-3, abs=1e-3), key
    assert figures[0]["loss_distance"] > 0 and 0 < figures[0]["confident"] < 1
    for model in ("student", "teacher"):
        one, two = (load_file(tmp_path / name / f"{model}.safetensors") for name in ("one", "two"))
        for key, tensor in one.items():
            torch.testing.assert_close(two[key], tensor, rtol=1e-3, atol=1e-4, msg=key)
