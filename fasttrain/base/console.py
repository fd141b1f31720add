"""What the user sees while something runs. Everything goes to stderr; stdout is for results (``--json``)."""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fasttrain.base.process import is_main

PLAIN_LINE_EVERY_S = 10.0


def say(message: str) -> None:
    """Print a line for the user (on the main process only)."""
    if is_main():
        print(message, file=sys.stderr, flush=True)


def emit_json(result: dict[str, Any]) -> None:
    """Print one JSON object on stdout (on the main process only)."""
    if is_main():
        print(json.dumps(result, default=_jsonable), flush=True)


def _jsonable(value: Any) -> Any:
    if hasattr(value, "tolist"):  # NumPy scalars and arrays
        return value.tolist()
    return str(value)


class Progress:
    """A counter with rate and time left. Use through `progress`."""

    def __init__(self, label: str, total: int, unit: str) -> None:
        self.label, self.total, self.unit = label, total, unit
        self.done = 0
        self.started = time.monotonic()

    def advance(self, count: int = 1) -> None:
        """Count `count` more units as done."""
        self.done += count

    def describe(self) -> str:
        """``label: 120/500 images, 310.2 images/s, 1 s left``."""
        elapsed = time.monotonic() - self.started
        rate = self.done / elapsed if elapsed > 0 else 0.0
        left = (self.total - self.done) / rate if rate > 0 else float("nan")
        return f"{self.label}: {self.done}/{self.total} {self.unit}, {rate:.1f} {self.unit}/s, {left:.0f} s left"


class _PlainProgress(Progress):
    """Plain lines, one every `PLAIN_LINE_EVERY_S` seconds, for logs and pipes."""

    _last_line = 0.0

    def advance(self, count: int = 1) -> None:
        super().advance(count)
        now = time.monotonic()
        if now - max(self._last_line, self.started) >= PLAIN_LINE_EVERY_S:
            self._last_line = now
            say(self.describe())


@contextmanager
def progress(label: str, total: int, unit: str = "images") -> Iterator[Progress]:
    """Show progress: a live bar with rate and ETA on a terminal, plain lines elsewhere, nothing on other ranks."""
    if not is_main():
        yield Progress(label, total, unit)
        return
    if not sys.stderr.isatty():
        plain = _PlainProgress(label, total, unit)
        yield plain
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(label, total=total, rate="")

        class _Live(Progress):
            def advance(self, count: int = 1) -> None:
                super().advance(count)
                elapsed = max(time.monotonic() - self.started, 1e-9)
                bar.update(task, completed=self.done, rate=f"{self.done / elapsed:,.0f} {unit}/s")

        yield _Live(label, total, unit)


def print_table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """Print a small table to stderr."""
    if not is_main():
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right")
    for row in rows:
        table.add_row(*row)
    Console(stderr=True).print(table)
