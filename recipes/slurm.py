"""A recipe as Slurm jobs: one script a stage, one for the report, and one that submits them with their dependencies."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from fasttrain.base.atomic import atomic_open
from fasttrain.recipes.graph import Stage
from fasttrain.recipes.resources import Machine, gpus_of

SUBMIT, REPORT = "submit.sh", "report.sh"
WARNING_S = 180  # before the time limit, to save a state


def write_jobs(
    stages: list[Stage],
    to: Path,
    run_arguments: Sequence[str],
    machine: Machine,
    options: Sequence[str] = (),
) -> list[Path]:
    """Write the scripts; they are on storage that all machines see, as the work folder has to be.

    Args:
        run_arguments: behind ``fasttrain recipe run``: the recipe, its work folder, what is set.
        machine: one of the cluster's.
        options: further ``#SBATCH`` options of all jobs (``--partition=a``).
    """
    to.mkdir(parents=True, exist_ok=True)
    numbers = {stage.name: number for number, stage in enumerate(stages)}
    scripts = []
    for stage in stages:
        script = to / f"{numbers[stage.name]:03d}_{stage.folder}.sh"
        _write(script, _job(stage, to, run_arguments, machine, options))
        scripts.append(script)
    _write(to / REPORT, _report(to, run_arguments, options))
    _write(to / SUBMIT, _submission(stages, numbers, scripts))
    return [*scripts, to / REPORT, to / SUBMIT]


def _job(stage: Stage, to: Path, run_arguments: Sequence[str], machine: Machine, options: Sequence[str]) -> str:
    gpus = gpus_of(stage, machine)
    head = [f"--job-name={stage.folder}", f"--nodes={stage.head.nodes}", "--ntasks-per-node=1"]
    head += [f"--gres=gpu:{gpus}"] if gpus else []
    head += [f"--cpus-per-task={machine.cores * gpus // max(1, len(machine.gpus)) if gpus else machine.cores}"]
    head += [f"--time={_minutes(stage.head.hours)}"] if stage.head.hours is not None else []
    head += [f"--output={to.absolute() / stage.folder}.%j.log", "--requeue", f"--signal=B:USR1@{WARNING_S}", *options]
    words = [sys.executable, "-m", "fasttrain.cli.app", "recipe", "run", *run_arguments]
    words += ["--only", stage.name, "--no-report"]
    return "\n".join(
        [
            "#!/bin/bash",
            *(f"#SBATCH {option}" for option in head),
            "# Before the time limit the stage saves its state, and the job is queued again.",
            f"cd {shlex.quote(str(Path.cwd()))} || exit 1",
            f"{shlex.join(words)} &",
            "runner=$!",
            "trap 'kill -USR1 $runner' USR1",
            "trap 'kill -TERM $runner' TERM",
            "# A signal ends a `wait` early, and then its result is not the runner's.",
            "while :; do wait $runner; code=$?; kill -0 $runner 2>/dev/null || break; done",
            "wait $runner; last=$?; [ $last -ne 127 ] && code=$last",
            '[ $code -eq 138 ] && scontrol requeue "$SLURM_JOB_ID"',
            "exit $code",
            "",
        ]
    )


def _report(to: Path, run_arguments: Sequence[str], options: Sequence[str]) -> str:
    """The page about all of it, whatever became of the stages."""
    head = ["--job-name=report", "--ntasks=1", f"--output={to.absolute() / 'report'}.%j.log", *options]
    words = [sys.executable, "-m", "fasttrain.cli.app", "recipe", "report", *run_arguments]
    lines = ["#!/bin/bash", *(f"#SBATCH {option}" for option in head)]
    return "\n".join([*lines, f"cd {shlex.quote(str(Path.cwd()))} || exit 1", f"exec {shlex.join(words)}", ""])


def _submission(stages: list[Stage], numbers: dict[str, int], scripts: list[Path]) -> str:
    lines = ["#!/bin/bash", "# Submits all stages; each waits for those that it needs.", "set -euo pipefail"]
    lines.append('cd "$(dirname "${BASH_SOURCE[0]}")"')
    for stage, script in zip(stages, scripts, strict=True):
        needed = ":".join(f"$job{numbers[need]}" for need in stage.needs)
        after = f" --dependency=afterok:{needed} --kill-on-invalid-dep=yes" if needed else ""
        lines.append(f"job{numbers[stage.name]}=$(sbatch --parsable{after} {shlex.quote(script.name)} | cut -d';' -f1)")
        lines.append(f'echo "$job{numbers[stage.name]} {stage.name}"')
    everything = ":".join(f"$job{number}" for number in numbers.values())
    lines.append(f"sbatch --parsable --dependency=afterany:{everything} {REPORT}")
    return "\n".join([*lines, ""])


def _minutes(hours: float) -> int:
    return max(1, round(60 * hours))


def _write(path: Path, text: str) -> None:
    with atomic_open(path) as file:
        file.write(text)
    path.chmod(0o755)
