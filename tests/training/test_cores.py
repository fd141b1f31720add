"""How loader and model share the cores."""

from dataclasses import asdict

import pytest
import torch

from fasttrain.base.errors import ConfigError
from fasttrain.base.process import available_cores
from fasttrain.base.runs import RunFolder
from fasttrain.loading.loader import Loader
from fasttrain.training import cores
from fasttrain.training.cores import CoreSplit
from fasttrain.training.run import train


@pytest.fixture
def torch_threads():
    before = torch.get_num_threads()
    yield before
    torch.set_num_threads(before)


def test_the_split_acts_is_said_and_is_stored(small_run, torch_threads, monkeypatch, capsys):
    made, real = [], Loader.__init__

    def init(self, *arguments, **options):
        made.append((options["threads"], options["nice"]))
        real(self, *arguments, **options)

    monkeypatch.setattr(Loader, "__init__", init)
    result = train(small_run(threads=2, loader_nice=4, model_threads=3, epochs=1))
    assert made == [(2, 4)] and torch.get_num_threads() == 3
    assert "2 threads of the loader at a priority lower by 4, 3 of the model" in capsys.readouterr().err
    stored = RunFolder(result.run).read_json("start.json")["threads"]
    assert stored == {"cores": available_cores(), "ranks": 1, "loading": 2, "nice": 4, "model": 3}


def test_by_default_both_have_the_cores_of_the_process(small_run, monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setattr(cores, "available_cores", lambda: 8)
    monkeypatch.setattr(cores, "default_threads", lambda: 4)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS")
    split = CoreSplit.of(small_run())
    assert asdict(split) == {"cores": 8, "ranks": 2, "loading": 4, "nice": cores.DEFAULT_NICE, "model": 4}
    assert str(split).startswith("8 cores for 2 processes: 4 threads of the loader")
    monkeypatch.setenv("OMP_NUM_THREADS", "8")  # said by hand
    assert CoreSplit.of(small_run()).model == 8


def test_the_default_priority_is_for_threads_that_are_ours(small_run, monkeypatch):
    monkeypatch.setattr(cores, "DEFAULT_NICE", 9)
    monkeypatch.setattr(cores, "threads_have_priorities", lambda: True)
    assert CoreSplit.of(small_run(backend="portable")).nice == 9
    assert CoreSplit.of(small_run(loader_nice=0)).nice == 0
    assert CoreSplit.of(small_run(backend="ffcv")).nice == 0
    monkeypatch.setattr(cores, "threads_have_priorities", lambda: False)
    assert CoreSplit.of(small_run()).nice == 0


def test_a_priority_out_of_range_is_refused_at_once(small_run):
    with pytest.raises(ConfigError, match="loader_nice"):
        small_run(loader_nice=20)
