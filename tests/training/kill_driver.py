"""Kills a training run at random moments, goes on after each, and compares with an undisturbed run.

A script of its own, run by test_run.py: it forks for each attempt, which a process with threads should not do.

    python kill_driver.py SETTINGS_JSON WORK KILLS

Prints one JSON object: how many kills there were, in how many of them the run was under way, and what differed after.
"""

import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import torch

from fasttrain.base.runs import RunFolder
from fasttrain.models.checkpoint import load_state
from fasttrain.models.weights import read_state_dict
from fasttrain.training.run import STATE, train
from fasttrain.training.settings import TrainSettings

TIMINGS = {"images_per_s", "data_wait_fraction"}


def start(settings: TrainSettings, log: Path) -> int:
    """Fork a process that trains, or goes on with, the run; its number."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        with log.open("a") as file:
            os.dup2(file.fileno(), 2)
        train(settings, resume=True)
        code = 0
    finally:
        os._exit(code)


def outcome(folder: Path) -> dict:
    """All that must not depend on interruptions."""
    state = load_state(folder / STATE)
    metrics = [{k: v for k, v in record.items() if k not in TIMINGS} for record in RunFolder(folder).read_metrics()]
    return {
        "weights": read_state_dict(folder / "last.safetensors"),
        "best": read_state_dict(folder / "best.safetensors"),
        "state": {key: state[key] for key in ("model", "optimizer", "ema", "loader")},
        "position": {key: value for key, value in state["position"].items() if key not in TIMINGS},
        "metrics": metrics,
    }


def differences(one: dict, other: dict) -> list[str]:
    return [key for key in one if not _equal(one[key], other[key])]


def _equal(a: object, b: object) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(_equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return isinstance(b, list | tuple) and len(a) == len(b) and all(map(_equal, a, b))
    return a == b


def main() -> None:
    settings, work = TrainSettings.model_validate_json(sys.argv[1]), Path(sys.argv[2])
    log, wanted = work / "log", int(sys.argv[3])
    whole = settings.model_copy(update={"out": str(work / "whole")})
    began = time.monotonic()
    assert os.waitpid(start(whole, log), 0)[1] == 0, log.read_text()
    length = time.monotonic() - began
    expected = outcome(work / "whole")
    rng, kills, under_way, failures = random.Random(0), 0, 0, []
    while kills < wanted:
        folder = work / "killed"
        shutil.rmtree(folder, ignore_errors=True)
        run = settings.model_copy(update={"out": str(folder)})
        while True:
            child = start(run, log)
            if kills < wanted:
                time.sleep(rng.uniform(0.1, 0.7) * length)
                os.kill(child, signal.SIGKILL)
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            kills += code == -signal.SIGKILL
            under_way += code == -signal.SIGKILL and (folder / STATE).exists()
            if code == 0:
                break
            if code != -signal.SIGKILL:
                failures.append(f"exit code {code}")
                break
        failures += differences(expected, outcome(folder))
    print(json.dumps({"kills": kills, "under_way": under_way, "failures": failures}))


if __name__ == "__main__":
    main()
