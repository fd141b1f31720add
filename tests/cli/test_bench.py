"""`fasttrain bench build` as a user runs it."""

import json
from pathlib import Path

import numpy as np
from PIL import Image
from typer.testing import CliRunner

from fasttrain.cli.app import app


def test_bench_build(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(20):
        Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)).save(folder / f"{number}.jpg")
    out = tmp_path / "figures.json"
    command = ["bench", "build", str(folder), "--rounds", "1", "--only", "fasttrain-keep", "--out", str(out)]
    plain = CliRunner().invoke(app, command)
    assert plain.exit_code == 0, plain.output
    assert "fasttrain-keep" in plain.stderr
    result = CliRunner().invoke(app, [*command, "--json"])
    figures = json.loads(result.stdout)
    assert figures["machine"]["cores"] >= 1 and figures["results"][0]["name"] == "fasttrain-keep"
    assert json.loads(out.read_text()) == figures
