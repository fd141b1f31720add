"""`fasttrain bench build` as a user runs it."""

import json
from pathlib import Path

from typer.testing import CliRunner

from fasttrain.cli.app import app


def test_bench_build(colour_tree: Path, tmp_path: Path) -> None:
    out = tmp_path / "figures.json"
    command = ["bench", "build", str(colour_tree), "--rounds", "1", "--only", "fasttrain-keep", "--out", str(out)]
    plain = CliRunner().invoke(app, command)
    assert plain.exit_code == 0, plain.output
    assert "fasttrain-keep" in plain.stderr
    result = CliRunner().invoke(app, [*command, "--json"])
    figures = json.loads(result.stdout)
    assert figures["machine"]["cores"] >= 1 and figures["results"][0]["name"] == "fasttrain-keep"
    assert json.loads(out.read_text()) == figures
