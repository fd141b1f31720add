"""Adaptation in two processes takes the steps of one with the whole batch."""

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from .test_jobs import TORCHRUN, run

JOB = Path(__file__).with_name("adaptation_steps.py")


@pytest.mark.thorough
def test_two_ranks_take_the_steps_of_one_with_the_whole_batch(tmp_path: Path) -> None:
    told = []
    for name, launcher in (
        ("one", [sys.executable]),
        ("two", [*TORCHRUN, "--standalone", "--nproc-per-node", "2"]),
    ):
        (tmp_path / name).mkdir()
        done = run([*launcher, str(JOB), str(tmp_path / name)])
        assert done.returncode == 0, done.stderr
        told.append(json.loads(done.stdout))
    for key, value in told[0].items():
        assert told[1][key] == pytest.approx(value, rel=1e-3, abs=1e-3), key
    assert told[0]["loss_distance"] > 0 and 0 < told[0]["confident"] < 1
    for model in ("student", "teacher"):
        one, two = (load_file(tmp_path / name / f"{model}.safetensors") for name in ("one", "two"))
        for key, tensor in one.items():
            torch.testing.assert_close(two[key], tensor, rtol=1e-3, atol=1e-4, msg=key)
