"""What a training run is asked for while it runs: to stop, by a signal, and to save, by the clock.

Both are looked at between steps, so that no step is left half done, and all ranks act on them after the same step. A
job of several processes compares notes every `AGREE_EVERY` steps and at an epoch's end, so that steps need not wait.
"""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

import torch

from fasttrain.base.distributed import sum_over_ranks
from fasttrain.base.errors import StoppedError
from fasttrain.base.process import is_main, world_size

AGREE_EVERY = 32
REPEAT_S = 1.0  # torchrun and cluster managers may both pass one and the same signal on
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


@dataclass(frozen=True)
class Wishes:
    """What all ranks are to do now."""

    stop: bool = False
    save: bool = False


class Requests:
    """Collects Ctrl-C, SIGTERM and SIGUSR1 (which clusters send before they take a machine back), and the time.

    Args:
        save_every_s: seconds between two saves; 0 for never.
    """

    def __init__(self, save_every_s: float) -> None:
        self._received: signal.Signals | None = None
        self._received_at = 0.0
        self._save_every_s = save_every_s or float("inf")
        self._saved_at = time.monotonic()

    @contextmanager
    def listening(self) -> Iterator["Requests"]:
        """Catch the signals while the block runs; a further one acts at once, if it comes `REPEAT_S` later."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        previous = {number: signal.signal(number, self._remember) for number in STOP_SIGNALS}
        try:
            yield self
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._received is None:
            self._received, self._received_at = signal.Signals(number), now
        elif now - self._received_at > REPEAT_S:
            raise KeyboardInterrupt

    def agreed(self, step: int, last: bool, device: torch.device) -> Wishes:
        """What any rank was asked for. All ranks call it after the same step, so that all act there."""
        stop, save = self._received is not None, time.monotonic() - self._saved_at >= self._save_every_s
        if world_size() == 1:
            return Wishes(stop, save)
        if step % AGREE_EVERY and not last:
            return Wishes()
        # One clock decides.
        stops, saves = sum_over_ranks(
            torch.tensor([stop, save and is_main()], dtype=torch.float, device=device)
        ).tolist()
        return Wishes(stops > 0, saves > 0)

    def saved(self) -> None:
        """The state was saved; the clock starts anew."""
        self._saved_at = time.monotonic()

    def stopped(self, where: str) -> StoppedError:
        """The error that ends a run which was asked to stop, after its state was saved."""
        name = self._received.name if self._received is not None else "a signal to another process"
        number = self._received or signal.SIGTERM
        return StoppedError(f"stopped by {name} {where}; add --resume to go on", 128 + number)
