"""The device of a process."""

import pytest
import torch

from fasttrain.base.distributed import process_group
from fasttrain.base.errors import ConfigError


def test_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with process_group() as device:
        assert device == torch.device("cpu")
    for name in ("cuda", "cuda:1"):
        with pytest.raises(ConfigError, match=f"device {name} was asked for, but torch finds no usable GPU"):
            process_group(name).__enter__()


def test_devices_that_there_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with process_group("cuda:1") as device:
        assert device == torch.device("cuda:1")
    with pytest.raises(ConfigError, match="device cuda:2 was asked for, but there are 2 GPUs"):
        process_group("cuda:2").__enter__()
    with pytest.raises(ConfigError, match="there is no device 'gpu'; use cpu, cuda or cuda:N"):
        process_group("gpu").__enter__()
