"""Runs contestants in turns, each time in a fresh process, and sums their figures up.

Interleaving spreads what else the machine does over all contestants; the order is rotated from round to round.
"""

import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from fasttrain.base.console import say
from fasttrain.base.process import available_cores

SHOWN_PACKAGES = (
    "fasttrain",
    "numpy",
    "pillow",
    "torch",
    "torchvision",
    "timm",
    "lightning",
    "ffcv",
    "opencv-python-headless",
    "simplejpeg",
    "webdataset",
    "nvidia-dali-cuda130",
    "POT",
    "geomloss",
    "ott-jax",
)


@dataclass(frozen=True)
class Contestant:
    """One way to do a work.

    Attributes:
        name: as it is reported.
        labels: further keys of its result (``work``, ``source``, ``dtype``, ``threads``).
        command: the process to run; the last line that it prints is a JSON object with `value` (in `unit`) and more.
    """

    name: str
    labels: dict[str, Any]
    command: list[str]
    unit: str


@dataclass
class Outcome:
    """What the rounds of one contestant gave."""

    contestant: Contestant
    rounds: list[float] = field(default_factory=list)
    extras: list[dict[str, Any]] = field(default_factory=list)
    error: str | None = None

    def as_json(self) -> dict[str, Any]:
        """One entry of ``results``."""
        who = {"name": self.contestant.name, **self.contestant.labels, "unit": self.contestant.unit}
        if self.error is not None or not self.rounds:
            return {**who, "error": self.error or "no round was run"}
        figures = {
            "median": round(statistics.median(self.rounds), 1),
            "min": round(min(self.rounds), 1),
            "max": round(max(self.rounds), 1),
            "rounds": [round(value, 1) for value in self.rounds],
        }
        return {**who, **figures, **self._middle_extras()}

    def _middle_extras(self) -> dict[str, Any]:
        """Of each further figure the (lower) median of the rounds."""
        found = {key: [extra[key] for extra in self.extras] for key in self.extras[0]}
        return {key: None if None in values else statistics.median_low(values) for key, values in found.items()}


def interleaved(
    contestants: Sequence[Contestant], rounds: int, timeout_s: float, before_each: Callable[[], None] | None = None
) -> list[Outcome]:
    """Run every contestant once a round, each time after a call of `before_each`.

    One that fails or takes longer than `timeout_s` is not run again.
    """
    outcomes = [Outcome(contestant) for contestant in contestants]
    with _ended_by_sigterm():
        for turn in range(rounds):
            start = turn % len(outcomes)
            for outcome in outcomes[start:] + outcomes[:start]:
                if outcome.error is None:
                    if before_each is not None:
                        before_each()
                    _run(outcome, timeout_s)
                    last = outcome.error or f"{outcome.rounds[-1]:,.0f} {outcome.contestant.unit}"
                    say(f"round {turn + 1}/{rounds}  {outcome.contestant.name}: {last}")
    return outcomes


@contextmanager
def scratch_folder(parent: Path | None) -> Iterator[Path]:
    """A folder that is gone afterwards, within `parent` (made where it is not there) or the system's own place."""
    if parent is not None:
        parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="fasttrain_bench_", dir=parent) as folder:
        yield Path(folder)


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end the benchmark as Ctrl-C does: with the contestant at work, and without its scratch folder."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _run(outcome: Outcome, timeout_s: float) -> None:
    printed, error = run_to_end(outcome.contestant.command, timeout_s)
    if error is not None:
        outcome.error = error
        return
    try:
        figures = json.loads(printed.strip().splitlines()[-1])
        outcome.rounds.append(float(figures.pop("value")))
    except (IndexError, ValueError, KeyError, AttributeError):
        outcome.error = "ended without printing its figures"
        return
    outcome.extras.append(figures)


def last_line(complaints: str) -> str:
    """The last line of what a process complained of."""
    lines = complaints.strip().splitlines()
    return lines[-1] if lines else "no message"


def run_to_end(
    command: list[str],
    timeout_s: float,
    *,
    given: str | None = None,
    environment: dict[str, str] | None = None,
    gist: Callable[[str], str] = last_line,
) -> tuple[str, str | None]:
    """Run a process: what it printed, and what went wrong (None if nothing did).

    It gets a session of its own, so that one that hangs is stopped with all the processes that it started.

    Args:
        given: its standard input; None for ours.
        environment: its environment; None for ours.
        gist: what to tell of the standard error of one that fails.
    """
    child = subprocess.Popen(
        command,
        stdin=None if given is None else subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=environment,
    )
    try:
        printed, complaints = child.communicate(given, timeout_s)
    except BaseException as error:
        os.killpg(child.pid, signal.SIGKILL)
        child.communicate()
        if not isinstance(error, subprocess.TimeoutExpired):
            raise
        return "", f"took longer than {timeout_s:g} s and was stopped"
    if child.returncode:
        return printed, f"exit code {child.returncode}: {gist(complaints)}"
    return printed, None


def ratio(outcomes: Sequence[Outcome], ours: str, theirs: str) -> dict[str, Any] | None:
    """Ratio of the medians of two contestants, and the least and largest within a round; None if one is missing."""
    found = {outcome.contestant.name: outcome for outcome in outcomes if outcome.rounds and outcome.error is None}
    if ours not in found or theirs not in found:
        return None
    mine, others = found[ours].rounds, found[theirs].rounds
    each = [one / other for one, other in zip(mine, others, strict=True)]
    return {
        "ours": ours,
        "theirs": theirs,
        "ratio": round(statistics.median(mine) / statistics.median(others), 3),
        "min": round(min(each), 3),
        "max": round(max(each), 3),
    }


def machine_facts() -> dict[str, Any]:
    """Processor, cores that may be used, memory, and the versions that matter. No names of hosts or people."""
    return {
        "processor": _processor(),
        "cores": available_cores(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": {name: found for name in SHOWN_PACKAGES if (found := _version(name)) is not None},
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown"
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else "unknown"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def python_command(module: str, *arguments: object) -> list[str]:
    """The command line that runs a module of this installation."""
    return [sys.executable, "-m", module, *map(str, arguments)]
