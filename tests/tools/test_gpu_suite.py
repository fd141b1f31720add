"""The GPU suite, tried in small on a CPU."""

import json
import subprocess
import sys
from pathlib import Path

from ..conftest import REPOSITORY


def test_every_section_runs_in_small(colour_tree: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(REPOSITORY / "benchmarks" / "gpu_suite.py"), str(colour_tree)]
    options = ["--device", "cpu", "--name", "try", "--results", str(tmp_path)]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads((tmp_path / "gpu_suite_try.json").read_text())
    assert set(result["sections"]) == {"parity", "stage", "resident", "decoders", "training"}
    for name, section in result["sections"].items():
        assert section["rows"] and "error" not in section, (name, section)
        assert all("error" not in row and "missing" not in row for row in section["rows"]), (name, section["rows"])
    assert all(row["ok"] for row in result["sections"]["parity"]["rows"])
    shares = {row["name"]: row.get("share_of_synthetic") for row in result["sections"]["training"]["rows"]}
    assert shares["real"] > 0 and shares["cached"] > 0
    assert "share_of_synthetic" in done.stdout and "finish bfloat16" in done.stdout
