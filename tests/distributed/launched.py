"""Starts what is looked at over several processes of this machine."""

import json
import os
import subprocess
import sys
from typing import Any

TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]


def run(command: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    """A command to its end, whatever it is."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=env, timeout=180)


def on_ranks(ranks: int, *words: object) -> list[str]:
    """The command line of so many processes: of a script, or ``-m`` and a module, and its arguments."""
    launcher = [*TORCHRUN, "--standalone", "--nproc-per-node", str(ranks)] if ranks > 1 else [sys.executable]
    return [*launcher, *map(str, words)]


def told(ranks: int, *words: object) -> dict[str, Any]:
    """The JSON object that so many processes print."""
    done = run(on_ranks(ranks, *words))
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result
