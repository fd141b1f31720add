"""A run's folder: its config, how it was started, its metrics as JSON lines."""

import json
import os
import platform
import shlex
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from fasttrain.base.atomic import atomic_open
from fasttrain.base.process import job_name

RECORDED_PACKAGES = ("fasttrain", "torch", "timm", "numpy", "pillow", "pyarrow")


class RunFolder:
    """``runs/NAME/``: ``config.json``, ``start.json`` (command, git revision, environment), ``metrics.jsonl``."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @property
    def metrics_path(self) -> Path:
        return self.path / "metrics.jsonl"

    def write_start(self, config: dict[str, Any], **facts: Any) -> None:
        """Make the folder; record the effective config and everything needed to repeat the run.

        Args:
            facts: of the environment besides those of `describe_start`, by name.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        self.write_json("config.json", config)
        self.write_json("start.json", {**describe_start(), **facts})

    def is_of_this_job(self) -> bool:
        """Whether the run in the folder was started by the same torchrun as this process."""
        return job_name() is not None and self.read_json("start.json").get("job") == job_name()

    def is_alive(self) -> bool:
        """Whether the process that started the run last is there; only its own machine can tell."""
        start = self.read_json("start.json")
        pid = start.get("pid")
        if start.get("host") != platform.node() or not isinstance(pid, int):
            return False
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass  # it is another user's
        return _started_before(pid, self.path / "start.json")

    def read_json(self, name: str) -> dict[str, Any]:
        """The object in ``NAME``; {} where there is none that can be read."""
        try:
            value = json.loads((self.path / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return value if isinstance(value, dict) else {}

    def write_json(self, name: str, value: Any) -> None:
        """Write ``NAME`` in the folder atomically."""
        with atomic_open(self.path / name) as file:
            json.dump(value, file, indent=2, default=str)
            file.write("\n")

    def append_metrics(self, record: dict[str, Any]) -> None:
        """Append one line to ``metrics.jsonl``; a line is written whole or, after a crash, ignored by the reader."""
        with self.metrics_path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def read_metrics(self) -> list[dict[str, Any]]:
        """All complete lines of ``metrics.jsonl``."""
        if not self.metrics_path.exists():
            return []
        records = []
        for line in self.metrics_path.read_text(encoding="utf-8").splitlines():
            try:
                records.append(json.loads(line))
            except json.JSONDecodeError:
                continue
        return records

    def drop_metrics_from(self, epoch: int) -> None:
        """Forget the lines of `epoch` and later, so that a resumed run does not list an epoch twice."""
        kept = [record for record in self.read_metrics() if record.get("epoch", -1) < epoch]
        with atomic_open(self.metrics_path) as file:
            file.writelines(json.dumps(record) + "\n" for record in kept)


def _started_before(pid: int, record: Path) -> bool:
    """Whether a process is older than a file that it wrote; numbers of processes are used again."""
    try:
        return Path(f"/proc/{pid}").stat().st_mtime <= record.stat().st_mtime + 1
    except OSError:
        return True  # where there is no /proc


def describe_start() -> dict[str, Any]:
    """Command, time, git revision, machine and package versions of this process."""
    return {
        "command": shlex.join(sys.argv),
        "job": job_name(),
        "host": platform.node(),
        "pid": os.getpid(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "git_revision": _git_revision(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in RECORDED_PACKAGES},
    }


def _git_revision() -> str | None:
    try:
        result = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() or None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
