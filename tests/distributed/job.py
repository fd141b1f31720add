"""One process of a job under torchrun: trains, evaluates, predicts, and notes which samples each step saw.

    torchrun … job.py SETTINGS_JSON [RANK STEP HOW]

With the last three, that rank ends itself after that step of its first life: HOW is the name of a signal, or "error".
Prints one JSON object on the main rank.
"""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from fasttrain.base.distributed import process_group
from fasttrain.base.process import is_main, rank, restarts
from fasttrain.cli.models import evaluate, predict
from fasttrain.training import requests
from fasttrain.training.run import train
from fasttrain.training.settings import TrainSettings
from fasttrain.training.stepper import Stepper

requests.AGREE_EVERY = 1  # the runs of the tests are short


def watch_steps(seen: Path, end: list[str]) -> None:
    """Append (global step, ids) of each step to a file of this rank; end the process where the command line says."""
    real, count = Stepper.step, 0

    def step(self: Stepper, batch: Any, global_step: int, *others: Any) -> None:
        nonlocal count
        real(self, batch, global_step, *others)
        with seen.open("a") as file:
            file.write(json.dumps([global_step, batch.ids.tolist()]) + "\n")
        count += 1
        if end and restarts() == 0 and [rank(), count] == [int(end[0]), int(end[1])]:
            if end[2] == "error":
                raise ValueError("a failure of this rank alone")
            os.kill(os.getpid(), getattr(signal, end[2]))

    Stepper.step = step  # type: ignore[method-assign]


def main() -> None:
    settings = TrainSettings.model_validate_json(sys.argv[1])
    out = Path(settings.out)
    watch_steps(out.parent / f"{out.name}.seen.{rank()}", sys.argv[2:])
    result = train(settings, resume="RESUME" in os.environ)
    with process_group("cpu"):
        evaluate(out, Path(str(settings.val)), batch_size=5, device="cpu", threads=1, json=True)
        predict(out, Path(str(settings.val)), out / "scores.arrow", batch_size=5, device="cpu", threads=1, json=True)
    if is_main():
        print(json.dumps({"epochs": result.epochs, "top1": result.top1}))


if __name__ == "__main__":
    main()
