"""What the settings of DDP and of gradient accumulation promise: the steps of one process with the whole batch."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from .launched import on_ranks, run

JOB = Path(__file__).with_name("ddp_options.py")
STEPS = 4
CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "parts": {"micro_batch": 1},
    "uneven_parts": {"micro_batch": 3},
    "static": {"ddp": {"static_graph": True}},
    "static_parts": {"micro_batch": 2, "ddp": {"static_graph": True}},
    "static_sam": {"sam_rho": 0.05, "ddp": {"static_graph": True}},
    "bf16": {"ddp": {"compression": "bf16"}},
    "bf16_parts": {"micro_batch": 2, "ddp": {"compression": "bf16"}},
}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """The weights after the same steps in one process."""
    out = tmp_path_factory.mktemp("alone")
    done = run(on_ranks(1, JOB, out, json.dumps({"whole": {}})))
    assert done.returncode == 0, done.stderr
    return load_file(out / "whole.safetensors")


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Two processes: the folder of the weights, and what is told of each case."""
    out = tmp_path_factory.mktemp("two")
    done = run(on_ranks(2, JOB, out, json.dumps(CASES)))
    assert done.returncode == 0, done.stderr
    return out, json.loads(done.stdout)


EXACT = [case for case in CASES if "bf16" not in case and "sam" not in case]


@pytest.mark.parametrize("case", EXACT)
def test_two_ranks_take_the_steps_of_one_with_the_whole_batch(
    case: str, job: tuple[Path, dict[str, Any]], alone: dict[str, torch.Tensor]
) -> None:
    weights = load_file(job[0] / f"{case}.safetensors")
    assert weights.keys() == alone.keys()
    for name, weight in weights.items():
        torch.testing.assert_close(weight, alone[name], rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("case", CASES)
def test_gradients_are_sent_once_a_step_and_lie_where_they_are_sent_from(
    case: str, job: tuple[Path, dict[str, Any]]
) -> None:
    """Parts of a batch are added up by each rank alone (no_sync); gradients are views of DDP's buckets."""
    facts = job[1][case]
    # A static graph where not every pass exchanges gradients is recorded in a pass of its own.
    assert facts["sent"] == facts["size"] * (STEPS + (case in ("static_parts", "static_sam")))
    assert facts["types"] == ["torch.bfloat16" if "bf16" in case else "torch.float32"]
    assert facts["storages"] <= 2 < facts["gradients"]  # two buckets hold all of this small model


@pytest.mark.parametrize("case", [case for case in CASES if "bf16" in case])
def test_gradients_in_bfloat16_are_near(
    case: str, job: tuple[Path, dict[str, Any]], alone: dict[str, torch.Tensor]
) -> None:
    weights = {name: load_file(job[0] / f"{name}.safetensors") for name in (case, "plain")}
    start = start_weights()
    moved = torch.cat([(alone[name] - start[name]).flatten() for name in alone])
    missed = torch.cat([(weights[case][name] - alone[name]).flatten() for name in alone])
    assert 0 < missed.norm() < 0.01 * moved.norm()  # rounded to 8 bits


def start_weights() -> dict[str, torch.Tensor]:
    from fasttrain.models.create import create_model

    torch.manual_seed(0)
    return create_model("test_vit", 3, size=32).state_dict()
