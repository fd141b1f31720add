"""A log of the commands that were run: when, where, by which process, how long, and how they ended.

It lies in ``$FASTTRAIN_COMMAND_LOG`` (off if that is empty), else in ``$XDG_STATE_HOME/fasttrain/commands.jsonl``
(``~/.local/state``). A command writes a line when it begins and one when it ends, so that one that was killed shows.
"""

import json
import os
import shlex
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MAX_BYTES = 1 << 20  # then the log is begun anew; the one before is kept beside it


@dataclass(frozen=True)
class LoggedCommand:
    """One command.

    Attributes:
        started: seconds since 1970.
        seconds, exit_code: None of one that has not ended, or was killed.
        error: the sentence that it ended with.
    """

    started: float
    pid: int
    folder: str
    command: str
    seconds: float | None = None
    exit_code: int | None = None
    error: str | None = None


class Ending:
    """How a command ends; what is not said is 0 without an error."""

    exit_code = 0
    error: str | None = None


@contextmanager
def logged(arguments: Sequence[str]) -> Iterator[Ending]:
    """Log a command while the block runs. A log that cannot be written is done without."""
    path, ending = log_path(), Ending()
    if path is None:
        yield ending
        return
    started = time.time()
    key = {"started": round(started, 3), "pid": os.getpid()}
    _append(path, key | {"folder": os.getcwd(), "command": shlex.join(["fasttrain", *arguments])})
    try:
        yield ending
    finally:
        seconds = round(time.time() - started, 3)
        _append(path, key | {"seconds": seconds, "exit_code": ending.exit_code, "error": ending.error})


def log_path() -> Path | None:
    """Where the log lies; None where it is turned off."""
    named = os.environ.get("FASTTRAIN_COMMAND_LOG")
    if named is not None:
        return Path(named) if named else None
    try:
        state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    except RuntimeError:  # a user without a home
        return None
    return Path(state) / "fasttrain" / "commands.jsonl"


def read_log() -> list[LoggedCommand]:
    """The commands of the log, in the order they began."""
    path = log_path()
    found: dict[tuple[Any, Any], dict[str, Any]] = {}
    for line in [] if path is None or not path.exists() else path.read_text(encoding="utf-8").splitlines():
        with suppress(ValueError, TypeError, KeyError):  # a line that was cut short
            record = json.loads(line)
            found.setdefault((record["started"], record["pid"]), {}).update(record)
    return [LoggedCommand(**record) for record in found.values() if "command" in record]


def _append(path: Path, record: dict[str, Any]) -> None:
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and path.stat().st_size > MAX_BYTES:
            path.replace(path.with_suffix(".old" + path.suffix))
        # One write a line: several processes may log at the same time.
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, (json.dumps(record) + "\n").encode())
        finally:
            os.close(descriptor)
