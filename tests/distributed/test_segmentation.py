"""Segmentation under torchrun."""

from pathlib import Path
from typing import Any

import pytest

from .launched import told

COMMAND = "from fasttrain.cli.app import main; main()"


def segment(folder: Path, ranks: int, *arguments: Any) -> dict[str, Any]:
    """What a command of as many processes prints."""
    script = folder / "command.py"
    script.write_text(COMMAND)
    return told(ranks, script, "segment", *arguments, "--device", "cpu", "--threads", "1", "--json")


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
