"""The GPU suite, tried in small on a CPU."""

import argparse
import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

from ..conftest import REPOSITORY


def test_every_section_runs_in_small(colour_tree: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(REPOSITORY / "benchmarks" / "gpu_suite.py"), str(colour_tree)]
    options = ["--device", "cpu", "--name", "try", "--results", str(tmp_path)]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads((tmp_path / "gpu_suite_try.json").read_text())
    on_cpu = {"parity", "loading", "stage", "resident", "cpu", "training"}
    assert set(result["sections"]) == on_cpu | {"nvjpeg", "nvimagecodec", "dali", "optimizers", "scores"}
    for name, section in result["sections"].items():
        assert section["rows"] and "error" not in section, (name, section)
        assert all("error" not in row for row in section["rows"]), (name, section["rows"])
        missing = [row["name"] for row in section["rows"] if "missing" in row]
        assert name not in on_cpu or all(row.startswith("dali") for row in missing), (name, missing)
    assert all(row["ok"] for row in result["sections"]["parity"]["rows"])
    assert result["verdict"]["parity"]["failed"] == [] and result["verdict"]["parity"]["passed"] >= 16
    shares = {row["name"]: row.get("share_of_synthetic") for row in result["sections"]["training"]["rows"]}
    assert shares["real"] > 0 and shares["cached"] > 0
    updates = {row["name"]: row for row in result["sections"]["optimizers"]["rows"]}
    assert updates["AdamW of torch, ResNet-50"]["share_of_copy"] > 0 and updates["LAMB by foreach, ViT-B/16"]["ms"] > 0
    assert "CUDA GPUs alone" in updates["AdamW, ours, ViT-B/16"]["missing"]
    passes = {row["name"]: row for row in result["sections"]["scores"]["rows"]}
    assert passes["column sums float16, beside NumPy"]["ok"] and passes["column sums float16 200x100"]["gb"] > 0
    assert "share_of_synthetic" in done.stdout and "finish bfloat16" in done.stdout
    assert "0 rows failed" in done.stdout and "training, real: " in done.stdout


@pytest.fixture
def suite(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The suite as a module."""
    monkeypatch.syspath_prepend(str(REPOSITORY / "benchmarks"))
    return import_module("gpu_suite")


def test_a_section_that_dies_leaves_its_rows(suite: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its process is an own one, of which the last row of each name counts."""

    def die(command: list[str], seconds: float, environment: dict[str, str]) -> tuple[str, str]:
        rows = Path(command[command.index("--rows") + 1])
        rows.write_text(
            '{"name": "a", "error": "at work"}\n{"name": "a", "ok": true}\n{"name": "b", "error": "at work"}\n{"na'
        )
        assert Path(environment["TMPDIR"]).is_dir()
        return "", f"took longer than {seconds:g} s and was stopped"

    monkeypatch.setattr(suite, "run_to_end", die)
    given = argparse.Namespace(photos=tmp_path, device="cuda", images=10)
    outcome = suite.supervise(suite.SECTIONS[0], given, torch.device("cuda"))
    assert outcome["rows"] == [{"name": "a", "ok": True}, {"name": "b", "error": "at work"}]
    assert outcome["error"] == "took longer than 45 s and was stopped"
    answers = suite.verdict({"parity": outcome})
    assert answers["parity"] == {"passed": 1, "failed": ["parity: b", f"parity: {outcome['error']}"]}


def test_a_folder_that_is_none(suite: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        suite.main([str(tmp_path / "none"), "--device", "cpu"])
    assert "is no folder" in capsys.readouterr().err


def test_sections_take_no_more_than_eight_minutes(suite: Any) -> None:
    assert sum(section.seconds for section in suite.SECTIONS) <= 480


def decoder(images_per_s: float, mib: float, ok: bool = True) -> dict[str, Any]:
    rows = [
        {"name": "views", "images_per_s": images_per_s, "gpu_memory_mib": mib},
        {"name": "whole images, beside Pillow", "right_pixels": ok},
    ]
    return {"rows": rows}


def test_the_verdict_names_the_fastest_and_the_lightest_decoder(suite: Any) -> None:
    sections = {"nvjpeg": decoder(9000, 50, ok=False), "nvimagecodec": decoder(4000, 900), "dali": decoder(5000, 1500)}
    answers = suite.verdict(sections)
    assert answers["decoders"]["fastest"] == "DALI mixed" and answers["decoders"]["lightest"] == "nvImageCodec"
    assert answers["decoders"]["keep"] == ["nvImageCodec"]
    text = "\n".join(suite.lines(answers))
    assert "fastest DALI mixed (5,000 images/s, 1,500 MiB)" in text
    assert "faster or lighter than DALI, and with right pixels: nvImageCodec (4,000 images/s, 900 MiB)" in text
    worse = suite.verdict({"nvimagecodec": decoder(4000, 1600), "dali": decoder(5000, 1500)})
    assert worse["decoders"]["keep"] == [] and "right pixels: none" in "\n".join(suite.lines(worse))
    assert "decoders" not in suite.verdict({"nvjpeg": {"rows": [{"name": "views", "missing": "no torchvision"}]}})
