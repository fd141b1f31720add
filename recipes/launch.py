"""Starts, watches and ends the process of a stage."""

import contextlib
import json
import os
import platform
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from fasttrain.base.atomic import atomic_open
from fasttrain.base.console import say
from fasttrain.recipes.command import SETTINGS, StageCommand
from fasttrain.recipes.graph import Stage
from fasttrain.recipes.state import LOG, STDOUT, Attempt

MARK = "FASTTRAIN_RECIPE_STAGE"  # tells the processes of a stage, in their environment
GRACE_S = 180.0  # to save a state, before a stage that was asked to end is killed
_SIGNALS = "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1"


@dataclass
class Running:
    """A stage whose process is there."""

    stage: Stage
    key: str
    attempt: Attempt
    folder: Path
    command: list[str]
    gpus: tuple[str, ...]
    process: subprocess.Popen[bytes]
    started: float = field(default_factory=time.monotonic)
    asked_to_end: float | None = None
    _shown: int = 0
    _rest: bytes = b""

    @property
    def seconds(self) -> float:
        """Of this attempt."""
        return time.monotonic() - self.started

    def show_new_lines(self) -> None:
        """Print what the process said since the last call, line by line."""
        with (self.folder / LOG).open("rb") as file:
            file.seek(self._shown)
            new = file.read()
        self._shown += len(new)
        *lines, self._rest = (self._rest + new).split(b"\n")
        for line in lines:
            text = line.rsplit(b"\r", 1)[-1].decode("utf-8", "replace").rstrip()
            if text:
                say(f"[{self.stage.name}] {text}")

    def ask_to_end(self) -> None:
        """Let the process save its state and end; one that was asked long ago is killed."""
        if self.asked_to_end is None:
            self.asked_to_end = time.monotonic()
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(signal.SIGTERM)
        elif time.monotonic() - self.asked_to_end > GRACE_S:
            self.kill()

    def kill(self) -> None:
        """End the process and all that it started."""
        kill_marked(self.folder, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()

    def result(self) -> dict[str, Any]:
        """The JSON object that the command printed; {} if there is none."""
        for line in reversed((self.folder / STDOUT).read_text(encoding="utf-8", errors="replace").splitlines()):
            with contextlib.suppress(ValueError):
                value = json.loads(line)
                if isinstance(value, dict):
                    return value
        return {}


def start(
    stage: Stage, key: str, attempt: Attempt, folder: Path, command: StageCommand, processes: int, gpus: tuple[str, ...]
) -> Running:
    """Start the process of a stage; its log is appended to, what it prints on stdout is kept apart."""
    if command.settings is not None:
        with atomic_open(folder / SETTINGS) as file:
            yaml.safe_dump(command.settings, file, sort_keys=False, allow_unicode=True)
    words = command_line(command.arguments, processes, stage.head.nodes)
    environment = {**os.environ, MARK: str(folder), "CUDA_VISIBLE_DEVICES": ",".join(gpus)}
    environment.setdefault("PYTHONUNBUFFERED", "1")
    with (folder / LOG).open("ab") as log, (folder / STDOUT).open("wb") as stdout:
        log.write(f"$ {shlex.join(words)}\n".encode())
        log.flush()
        shown = log.tell()
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=log,
            env=environment,
            start_new_session=True,  # Ctrl-C is for the runner, which passes it on once
        )
    return Running(stage, key, attempt, folder, words, gpus, process, _shown=shown)


def last_words(log: Path) -> str:
    """The last line of a log: mostly the sentence that the command ended with."""
    with log.open("rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - 8192))
        lines = file.read().decode("utf-8", "replace").split("\n")
    words = [line.strip() for line in lines if line.strip()]
    own = [line for line in words if line.startswith("fasttrain")]
    return (own or words or ["it said nothing"])[-1]


def command_line(arguments: list[str], processes: int, nodes: int) -> list[str]:
    """The words that start a command in `processes` processes on each of `nodes` machines."""
    module = ["-m", "fasttrain.cli.app", *arguments]
    if processes == 1 and nodes == 1:
        return [sys.executable, *module]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
    torchrun += ["--signals-to-handle", _SIGNALS]
    if nodes == 1:
        return [*torchrun, "--standalone", *module]
    job = os.environ.get("SLURM_JOB_ID", "0")
    meeting = ["--rdzv-backend", "c10d", "--rdzv-id", job]
    meeting += ["--rdzv-endpoint", f"{platform.node()}:{20000 + int(job) % 20000}"]
    slurm = ["srun", "--nodes", str(nodes), "--ntasks", str(nodes), "--ntasks-per-node", "1"]
    return [*slurm, *torchrun, "--nnodes", str(nodes), *meeting, *module]


def end_leftovers(folder: Path) -> None:
    """End the processes of a stage that a killed runner left behind, before two of them write the same files."""
    if not kill_marked(folder, signal.SIGTERM):
        return
    say(f"ending what an earlier run left at work in {folder}")
    deadline = time.monotonic() + GRACE_S
    while marked_processes(folder) and time.monotonic() < deadline:
        time.sleep(0.1)
    kill_marked(folder, signal.SIGKILL)
    while marked_processes(folder):
        time.sleep(0.05)


def kill_marked(folder: Path, number: signal.Signals) -> int:
    """Send a signal to all processes of a stage; how many there are."""
    found = marked_processes(folder)
    for pid in found:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)
    return len(found)


def marked_processes(folder: Path) -> list[int]:
    """Processes of this machine whose environment says that they work for the stage in `folder`."""
    wanted = f"{MARK}={folder}".encode()
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            marked = wanted in (entry / "environ").read_bytes().split(b"\0") and int(entry.name) != os.getpid()
            if marked and (entry / "stat").read_text().rpartition(")")[2].split()[0] != "Z":
                found.append(int(entry.name))
    return found
