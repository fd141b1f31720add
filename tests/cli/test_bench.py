"""`fasttrain bench` as a user runs it."""

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


def test_bench_loader(colour_tree: Path, tmp_path: Path) -> None:
    out = tmp_path / "figures.json"
    small = "--size 32 --scale 0.5,1 --batch-size 8 --repeat 6 --workers 2 --threads-curve --rounds 1 --only portable"
    command = ["bench", "loader", str(colour_tree), *small.split(), "--out", str(out), "--json"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    figures = json.loads(result.stdout)
    assert [(entry["name"], entry["threads"]) for entry in figures["results"]] == [("portable", 1), ("portable", 2)]
    assert figures["scale"] == [0.5, 1.0]
    assert json.loads(out.read_text()) == figures
    assert "first batch, s" in result.stderr


def test_bench_loader_wants_a_scale_of_two_numbers(colour_tree: Path) -> None:
    result = CliRunner().invoke(app, ["bench", "loader", str(colour_tree), "--scale", "0.5"])
    assert result.exit_code == 1 and "--scale is two numbers" in str(result.exception)
