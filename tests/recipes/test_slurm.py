"""Job scripts: one a stage, with the stages' dependencies, and runnable as they are."""

import os
import subprocess
from pathlib import Path

import pytest

from fasttrain.recipes.launch import command_line

from .conftest import fasttrain


@pytest.fixture
def jobs(recipe: Path, tmp_path: Path) -> Path:
    out = ("--out", tmp_path / "work", "--to", tmp_path / "jobs")
    result = fasttrain("recipe", "slurm", recipe, *out, "--set", "threshold=0.9", "--sbatch", "--partition=a")
    assert result["scripts"] == 7
    return tmp_path / "jobs"


def test_scripts_are_bash_and_submit_each_stage_after_those_it_needs(jobs: Path, tmp_path: Path) -> None:
    for script in jobs.glob("*.sh"):
        subprocess.run(["bash", "-n", script], check=True)
    # A stand-in for sbatch, which numbers the jobs and keeps what it was told.
    (tmp_path / "bin").mkdir()
    told = tmp_path / "told"
    sbatch = tmp_path / "bin" / "sbatch"
    sbatch.write_text(f'#!/bin/bash\necho "$*" >> {told}\necho "$(wc -l < {told});cluster"\n')
    sbatch.chmod(0o755)
    environment = {**os.environ, "PATH": f"{sbatch.parent}:{os.environ['PATH']}"}
    subprocess.run([jobs / "submit.sh"], env=environment, check=True, capture_output=True)
    lines = told.read_text().splitlines()
    assert len(lines) == 8
    assert "afterok" not in lines[0]
    ensemble = next(line for line in lines if "ensemble" in line)
    assert "--dependency=afterok:1:2 " in ensemble
    assert lines[-1].endswith("--dependency=afterany:1:2:3:4:5:6:7 report.sh")


def test_a_script_runs_its_stage_alone(jobs: Path, tmp_path: Path) -> None:
    script = jobs / "000_tables,model=a.sh"
    assert "#SBATCH --partition=a" in script.read_text()
    subprocess.run(["bash", script], check=True, capture_output=True)
    done = [path.name for path in (tmp_path / "work" / "stages").iterdir() if path.is_dir()]
    assert done == ["tables,model=a"]
    assert subprocess.run(["bash", jobs / "002_ensemble.sh"], check=False, capture_output=True).returncode == 1


def test_several_machines_are_started_by_srun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    words = command_line(["train", "--config", "x"], processes=4, nodes=2)
    assert words[:3] == ["srun", "--nodes", "2"]
    assert words[words.index("--nproc-per-node") + 1] == "4"
    assert words[words.index("--nnodes") + 1] == "2"
    assert words[words.index("--rdzv-id") + 1] == "17"
    assert "--standalone" in command_line(["train"], processes=2, nodes=1)
    assert "torch.distributed.run" not in command_line(["train"], processes=1, nodes=1)
