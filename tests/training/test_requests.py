"""Signals and the clock, as the step loop sees them."""

import os
import signal

import pytest
import torch

from fasttrain.training import requests
from fasttrain.training.requests import Requests, Wishes

CPU = torch.device("cpu")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_is_remembered_and_ends_with_its_exit_code(number):
    before = signal.getsignal(number)
    asked = Requests(0)
    with asked.listening():
        assert asked.agreed(1, False, CPU) == Wishes()
        os.kill(os.getpid(), number)
        assert asked.agreed(2, False, CPU) == Wishes(stop=True)
    assert signal.getsignal(number) == before
    error = asked.stopped("after epoch 3")
    assert error.exit_code == 128 + number
    assert str(error) == f"stopped by {number.name} after epoch 3; add --resume to go on"


def test_the_same_signal_twice_is_one_and_a_later_one_acts_at_once(monkeypatch):
    now = 100.0
    monkeypatch.setattr(requests.time, "monotonic", lambda: now)
    with Requests(0).listening():
        os.kill(os.getpid(), signal.SIGINT)
        now = 100.5  # torchrun passes Ctrl-C on, which the terminal sends to all processes as well
        os.kill(os.getpid(), signal.SIGINT)
        now = 102.0
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_it_is_time_to_save_after_as_long_as_was_asked_for(monkeypatch):
    now = 100.0
    monkeypatch.setattr(requests.time, "monotonic", lambda: now)
    asked, never = Requests(60), Requests(0)
    assert not asked.agreed(1, False, CPU).save
    now = 160.0
    assert asked.agreed(2, False, CPU) == Wishes(save=True)
    asked.saved()
    assert not asked.agreed(3, False, CPU).save
    now = 1e9
    assert asked.agreed(4, False, CPU).save and not never.agreed(4, False, CPU).save
