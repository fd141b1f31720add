"""A run that is asked to end in its midst, as a cluster asks."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from fasttrain.base.errors import StoppedError
from fasttrain.training.stepper import Stepper


@contextmanager
def stopped_after(
    steps: int, by: signal.Signals = signal.SIGTERM, stepper: type = Stepper, message: str = ""
) -> Iterator[pytest.ExceptionInfo[StoppedError]]:
    """The run within takes so many steps, is sent a signal, and ends with a `StoppedError` that names it.

    Args:
        stepper: whose ``step`` counts.
        message: pattern of what the error says behind the signal's name.
    """
    taken, real = 0, stepper.step  # type: ignore[attr-defined]

    def step(self: Any, *arguments: Any) -> None:
        nonlocal taken
        real(self, *arguments)
        taken += 1
        if taken == steps:
            os.kill(os.getpid(), by)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(stepper, "step", step)
        with pytest.raises(StoppedError, match=f"stopped by {by.name} .*{message}") as stopped:
            yield stopped
    assert taken == steps
