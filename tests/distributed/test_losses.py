"""What depends on a whole batch is the same over several processes as in one that has it all."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).with_name("loss_steps.py")


def steps(kind: str, ranks: int) -> dict[str, Any]:
    job = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)] if ranks > 1 else []
    done = subprocess.run(
        [sys.executable, *job, str(SCRIPT), kind],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=180,
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_gradient_statistics_of_two_ranks_are_those_of_the_whole_batch() -> None:
    one, two = steps("eql", 1), steps("eql", 2)
    assert min(one["statistics"]["positive"][:3]) > 0 and one["statistics"]["positive"][3] == 0
    for part in ("statistics", "weights"):
        for name, values in one[part].items():
            assert two[part][name] == pytest.approx(values, rel=1e-4, abs=1e-6), name


@pytest.mark.thorough
def test_the_encoder_sees_the_images_of_all_ranks_and_gradients_find_their_way_back() -> None:
    one, two, alone = steps("former", 1), steps("former", 2), steps("former-alone", 2)
    for name, values in one["weights"].items():
        assert two["weights"][name] == pytest.approx(values, rel=1e-3, abs=1e-5), name
    assert alone["weights"]["stem.weight"] != pytest.approx(one["weights"]["stem.weight"], rel=1e-3, abs=1e-5)
