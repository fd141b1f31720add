"""Segmentation under torchrun."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

COMMAND = "from fasttrain.cli.app import main; main()"


def segment(folder: Path, ranks: int, *arguments: Any) -> dict[str, Any]:
    """What a command of as many processes prints."""
    script = folder / "command.py"
    script.write_text(COMMAND)
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"] if ranks > 1 else []
    command = [sys.executable, *launcher, str(script), "segment", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "--device", "cpu", "--threads", "1", "--json"], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@pytest.mark.thorough
def test_two_processes_measure_and_predict_what_one_does(colour_masks: Path, tmp_path: Path) -> None:
    beton, run = colour_masks / "pairs.beton", tmp_path / "run"
    small = ["--model", "test_efficientnet", "--head-channels", 8, "--set", "head_embed=8", "--size", 32]
    length = ["--iterations", 4, "--interval", 2, "--batch-size", 3]
    trained = segment(tmp_path, 2, "train", "--data", beton, "--val", beton, "--out", run, *small, *length)
    two = segment(tmp_path, 2, "evaluate", run, beton, "--batch-size", 5)
    one = segment(tmp_path, 1, "evaluate", run, beton, "--batch-size", 4)
    assert one == two and one["miou"] == trained["miou"] and one["samples"] == 12
    files = {}
    for ranks in (1, 2):
        out = tmp_path / f"masks{ranks}"
        result = segment(tmp_path, ranks, "predict", run, beton, "--out", out, "--threshold", 0.34)
        files[ranks] = {path.name: path.read_bytes() for path in out.iterdir()}
        assert result["samples"] == len(files[ranks]) == 12
    assert files[1] == files[2]
