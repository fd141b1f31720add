"""What a running training shows and records: a live line, `metrics.jsonl`, TensorBoard events."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import numpy as np
import torch

from fasttrain.base.console import PLAIN_LINE_EVERY_S, say
from fasttrain.base.process import is_main, world_size
from fasttrain.base.runs import RunFolder
from fasttrain.loading.batch import Batch
from fasttrain.training.epochs import EpochTable
from fasttrain.training.trackers import Tracker

REFRESH_EVERY_S = 0.5
VALIDATED = {"val_loss": "loss", "val_top1": "top-1", "val_miou": "mIoU", "val_aacc": "pixel accuracy"}
BESIDE = {"raw": "without averaging", "teacher": "teacher", "student": "student"}  # see `Stepper.beside`


class LaggedLoss:
    """The training loss for display, read without ever making a GPU wait.

    The loss is summed on the device. Now and then a copy to the host is started, and read at a later call, once it has
    arrived; on the CPU there is nothing to wait for.
    """

    def __init__(self, device: torch.device) -> None:
        self._sum = torch.zeros(2, dtype=torch.float64, device=device)
        self._pending: tuple[torch.Tensor, torch.cuda.Event] | None = None
        self._shown: float | None = None

    def start_at(self, totals: torch.Tensor) -> None:
        """Go on from what `totals` gave earlier: float64 (2,)."""
        self._sum.copy_(totals)

    def add(self, loss: torch.Tensor, samples: torch.Tensor) -> None:
        """Add a batch: summed loss and number of samples, both 0-dim tensors on the device."""
        self._sum += torch.stack([loss.detach().double(), samples.double()])

    def totals(self) -> torch.Tensor:
        """Summed loss and number of samples so far, float64 (2,), on the device."""
        return self._sum

    def peek(self) -> float | None:
        """Mean loss of this epoch as of the last copy that has arrived, None before the first."""
        if self._sum.device.type != "cuda":
            self._note(self._sum)
            return self._shown
        if self._pending is not None and self._pending[1].query():
            self._note(self._pending[0])
            self._pending = None
        if self._pending is None:
            arrived = torch.cuda.Event()
            self._pending = (self._sum.to("cpu", non_blocking=True), arrived)
            arrived.record()
        return self._shown

    def _note(self, totals: torch.Tensor) -> None:
        loss, samples = totals.tolist()
        self._shown = loss / samples if samples else None


class Monitor:
    """Shows progress on a terminal (a live line) or in a log (plain lines), and records each epoch."""

    def __init__(
        self,
        run: RunFolder,
        table: EpochTable,
        grid: Callable[[Batch], np.ndarray] | None = None,
        make_trackers: Callable[[], list[Tracker]] = list,
    ) -> None:
        self._run, self._grid, self._make_trackers = run, grid, make_trackers
        self._trackers: list[Tracker] = []
        self._table = table
        self._live: Any = None
        self._board: Any = None
        self._last_shown = 0.0
        self._started = time.monotonic()
        self._started_at: float | None = None  # the share of the run's work that was done then

    def __enter__(self) -> "Monitor":
        if not is_main():
            return self
        from torch.utils.tensorboard import SummaryWriter

        self._board = SummaryWriter(str(self._run.path / "tensorboard"))
        self._trackers = self._make_trackers()
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live

            self._live = Live(console=Console(stderr=True), refresh_per_second=4, transient=True)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
        if self._board is not None:
            self._board.close()
        for tracker in self._trackers:
            tracker.close()

    def samples(self, epoch: int, batch: Batch) -> None:
        """Record what the model gets to see, for TensorBoard: once, of the first batch that this process trains on."""
        if self._grid is not None and self._board is not None:
            self._board.add_image("training samples", self._grid(batch), epoch, dataformats="HWC")
        self._grid = None

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Take the live line away while something else has the terminal."""
        if self._live is not None:
            self._live.stop()
        try:
            yield
        finally:
            if self._live is not None:
                self._live.update("")
                self._live.start()

    def step(self, epoch: int, step: int, loss: LaggedLoss, lately: int, seconds: float, waited: float) -> None:
        """Called after each step.

        Args:
            step: steps of the epoch that are done.
            lately: how many of them this process did, in how many `seconds`, of which it `waited` for data.
        """
        now = time.monotonic()
        done = self._table.work_done(epoch, step)
        if self._started_at is None:
            self._started_at, self._started = done, now
        every = REFRESH_EVERY_S if self._live is not None else PLAIN_LINE_EVERY_S
        if not is_main() or now - self._last_shown < every:
            return
        self._last_shown = now
        measured = done - self._started_at
        left = (now - self._started) / measured * (1 - done) if measured else float("nan")
        shape = self._table.shapes[epoch]
        line = (
            f"epoch {epoch + 1}/{self._table.epochs}  {_described(self._table.figures(epoch))}"
            f"step {step}/{shape.steps}  loss {_number(loss.peek())}  "
            f"{shape.batch_size * world_size() * lately / seconds:,.1f} images/s  "
            f"data wait {waited / seconds:.1%}  ETA {_clock(left)}"
        )
        if self._live is not None:
            self._live.update(line)
        else:
            say(line)

    def epoch(self, record: dict[str, Any]) -> None:
        """Record an epoch's figures and print one line about it."""
        if not is_main():
            return
        self._run.append_metrics(record)
        figures = {key: value for key, value in record.items() if key != "epoch" and isinstance(value, int | float)}
        for key, value in figures.items():
            self._board.add_scalar(key, value, record["epoch"])
        self._board.flush()
        for tracker in self._trackers:
            tracker.log(figures, record["epoch"])
        parts = [f"epoch {record['epoch'] + 1}/{self._table.epochs}"]
        parts += [f"{_described(self._table.figures(record['epoch']))}train loss {record['train_loss']:.4f}"]
        shown = [f"{name} {record[key]:.4f}" for key, name in VALIDATED.items() if record.get(key) is not None]
        if shown:
            parts.append(f"val {', '.join(shown)}")
        others = {f"{main}_{name}": said for main in ("val_top1", "val_miou") for name, said in BESIDE.items()}
        parts += [f"({said} {record[key]:.4f})" for key, said in others.items() if record.get(key) is not None]
        parts.append(f"{record['images_per_s']:,.1f} images/s, data wait {record['data_wait_fraction']:.1%}")
        with self.paused():
            say("  ".join(parts))


def _described(shape: dict[str, int]) -> str:
    """Sizes that change from epoch to epoch; nothing if none does."""
    return "".join(f"{name.replace('_', ' ')} {value}  " for name, value in shape.items())


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _clock(seconds: float) -> str:
    if seconds != seconds:
        return "-"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
