"""Learning without labels over several processes."""

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).with_name("pretrain_steps.py")


def of_two_ranks() -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(SCRIPT)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=180,
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_two_ranks_deal_their_samples_and_share_one_queue() -> None:
    alone, two = runpy.run_path(str(SCRIPT))["moco"](False), of_two_ranks()
    for kind in ("plain", "normalised"):
        assert two[kind]["same_queues"]
    # Without batch normalisation it does not matter who is with whom: all is that of one process.
    for name in ("queue", "weights"):
        for mine, theirs in zip(alone[name], two["plain"][name], strict=True):
            assert mine == pytest.approx(theirs, rel=1e-4, abs=1e-6)
    assert alone["figures"] == pytest.approx(two["plain"]["figures"], rel=1e-4)
    # With it, keys are made in other company than queries.
    queried, keyed = two["normalised"]["queried"], two["normalised"]["keyed"]
    assert queried == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert sorted(keyed[0] + keyed[1]) == list(range(8)) and {*keyed[0]} not in [{*group} for group in queried]
    assert two["mae_in_step"]
