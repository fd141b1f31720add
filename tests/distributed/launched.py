"""Starts what is looked at over several processes of this machine."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

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


def of_one_and_of_two(script: Path, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a script tells in one process and in two, each with a folder of that name to write into."""
    for name in ("one", "two"):
        (folder / name).mkdir()
    return told(1, script, folder / "one"), told(2, script, folder / "two")


def same_weights(folder: Path, file: str, rtol: float, atol: float) -> dict[str, torch.Tensor]:
    """The weights that one process has written, which those of two must be like."""
    one, two = (load_file(folder / name / file) for name in ("one", "two"))
    for key, tensor in one.items():
        torch.testing.assert_close(two[key], tensor, rtol=rtol, atol=atol, msg=key)
    return one
