"""Runs whose images and batches change their size from epoch to epoch."""

import json
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from typer.testing import CliRunner

from fasttrain.base.errors import ConfigError, FasttrainError, LoaderError, StoppedError
from fasttrain.base.runs import RunFolder
from fasttrain.beton_build.build import build
from fasttrain.beton_build.options import BuildOptions
from fasttrain.beton_build.sources import read_source
from fasttrain.cli.app import app
from fasttrain.loading.optional import why_absent
from fasttrain.loading.per_epoch import EpochShape
from fasttrain.models.opened import open_model
from fasttrain.models.weights import read_state_dict
from fasttrain.training.epochs import EpochTable
from fasttrain.training.monitor import LaggedLoss, Monitor
from fasttrain.training.run import train
from fasttrain.training.stepper import Stepper

SIZES, BATCHES = {0: 32, 1: 48}, {0: 8, 1: 4, 2: 10}  # 3, 6 and 2 steps
SCHEDULES = {"size_schedule": SIZES, "batch_schedule": BATCHES, "lr_with_batch": "sqrt"}
SHAPES = [(8, 32)] * 3 + [(4, 48)] * 6 + [(10, 48)] * 2


@pytest.fixture
def settings(small_run):
    return partial(small_run, size=64, **SCHEDULES)


@pytest.fixture
def steps(monkeypatch):
    """(global step, batch size, side in pixels, learning rate) of each step, and where to ask for a stop (``at``)."""
    seen, stop = [], {}
    real = Stepper.step

    def step(self, batch, global_step, *others):
        real(self, batch, global_step, *others)
        lr = self.optimizer.param_groups[0]["lr"]
        seen.append((global_step, len(batch.images), batch.images.shape[-1], lr))
        if global_step == stop.get("at"):
            stop.clear()
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Stepper, "step", step)
    return seen, stop


def test_steps_rates_and_figures_are_those_of_the_schedules(settings, steps, colour_tree):
    seen, _ = steps
    chosen = settings(val=str(colour_tree), schedule={"kind": "constant", "warmup_epochs": 0}, swa_start=2)
    result = train(chosen)
    assert [step for step, *_ in seen] == list(range(11))
    assert [(batch, size) for _, batch, size, _ in seen] == SHAPES
    factors = [(batch / 8) ** 0.5 for batch, _ in SHAPES]
    assert [lr / seen[0][3] for *_, lr in seen] == pytest.approx(factors)
    records = RunFolder(result.run).read_metrics()
    assert [(record["size"], record["batch_size"]) for record in records] == [(32, 8), (48, 4), (48, 10)]
    assert [record["lr"] for record in records] == pytest.approx([5e-3 * (batch / 8) ** 0.5 for batch in (8, 4, 10)])
    assert open_model(result.run).view.size == 64  # that of evaluation
    assert result.swa_top1 is not None


def test_what_is_not_scheduled_is_not_recorded(settings):
    plain = {"size_schedule": None, "batch_schedule": None, "lr_with_batch": "none", "epochs": 1}
    (record,) = RunFolder(train(settings(**plain)).run).read_metrics()
    assert not {"size", "batch_size"} & record.keys()


@pytest.mark.parametrize("backend", ["portable", "native", "dali"])
def test_every_backend_trains_on_the_sizes(settings, steps, colour_tree, tmp_path, backend):
    if (reason := why_absent(backend)) is not None:
        pytest.skip(reason)
    beton = str(tmp_path / "colours.beton")
    build(read_source(colour_tree), beton, BuildOptions(workers=1))
    seen, _ = steps
    train(settings(data=beton, val=beton, backend=backend))
    assert [(batch, size) for _, batch, size, _ in seen] == SHAPES


@pytest.mark.parametrize(
    ("stop_at", "changes"),
    [
        (1, {"memory_budget": "1GB", "size_schedule": None}),
        (5, {"ema": 0.5, "micro_batch": 3}),
        (8, {"sampling": {"rest": "wrap", "draws": 24, "class_balance": 1}}),
    ],
)
def test_a_run_stopped_in_any_size_resumes_to_the_same_weights(settings, steps, tmp_path, stop_at, changes):
    seen, stop = steps
    whole = read_state_dict(train(settings(**changes)).checkpoint)
    undisturbed = seen.copy()
    seen.clear()
    stop["at"] = stop_at
    interrupted = settings(**changes, out=str(tmp_path / "stopped"))
    with pytest.raises(StoppedError):
        train(interrupted)
    assert len(seen) == stop_at + 1
    result = train(interrupted, resume=True)
    resumed = read_state_dict(result.checkpoint)
    assert seen == undisturbed
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    losses = [record["train_loss"] for record in RunFolder(result.run).read_metrics()]
    assert losses == [record["train_loss"] for record in RunFolder(tmp_path / "run").read_metrics()]


@pytest.mark.thorough
def test_a_run_killed_in_any_size_ends_in_the_same_bits(settings, colour_tree, tmp_path):
    chosen = settings(val=str(colour_tree), ema=0.5, threads=1, checkpoint_minutes=1e-4)
    driver = Path(__file__).with_name("kill_driver.py")
    command = [sys.executable, str(driver), chosen.model_dump_json(), str(tmp_path), "4"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["failures"] == [] and report["kills"] == 4


def test_a_resumed_run_keeps_its_schedules(settings):
    train(settings())
    with pytest.raises(ConfigError, match=r"was started with size_schedule=\{'0': 32, '1': 48\}, not \{'0': 32\}"):
        train(settings(size_schedule={0: 32}), resume=True)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"size_schedule": {0: 32, 3: 48}}, "size_schedule speaks of epoch 3, but the last of 3, counted from 0, is 2"),
        ({"size_schedule": {"from": 32, "to": 64, "end": 9}}, "size_schedule speaks of epoch 9, but the last of 3"),
        ({"batch_schedule": {0: 4, 5: 8}}, "batch_schedule speaks of epoch 5"),
        ({"batch_size": 2, "micro_batch": 4, "compile": "reduce-overhead"}, "replays CUDA graphs"),
        ({"batch_schedule": None}, "lr_with_batch says how the learning rate follows batch_schedule, which is not"),
        ({"batch_schedule": {0: 4, 1: 30}}, "a batch of 30 needs 30 samples, the data set has 24"),
        ({"size_schedule": {1: 32}}, "rise from 0"),
        ({"size_schedule": {"from": 33, "to": 64, "end": 1}}, "33 is no multiple of 32"),
        ({"lr_with_batch": "square"}, "lr_with_batch"),
    ],
)
def test_impossible_schedules_end_the_run_before_its_first_step(settings, steps, changes, words):
    with pytest.raises(FasttrainError, match=words) as caught:
        train(settings(**changes))
    assert isinstance(caught.value, ConfigError | LoaderError) and "\n" not in str(caught.value)
    assert steps[0] == []


def test_models_of_one_size_say_what_to_do_and_do_it(settings, steps):
    seen, _ = steps
    fixed = {"model": "vit_tiny_patch16_224", "size": 48, "size_schedule": {0: 32, 1: 48}, "epochs": 2}
    fixed["batch_schedule"] = {0: 8}
    with pytest.raises(ConfigError, match=r"images of 32 pixels, and vit_tiny_patch16_224 does not .*dynamic_img_size"):
        train(settings(**fixed))
    with pytest.raises(ConfigError, match=r"images of 40 pixels, .*divisible by patch size.* take other sizes"):
        train(settings(**{**fixed, "size_schedule": {0: 40}, "dynamic_img_size": True}))
    assert seen == []
    result = train(settings(**fixed, dynamic_img_size=True))
    assert {size for _, _, size, _ in seen} == {32, 48}
    assert open_model(result.run).view.size == 48


def test_a_teacher_of_one_size_is_named(settings, tmp_path):
    plain = {"size_schedule": None, "batch_schedule": None, "lr_with_batch": "none", "epochs": 1}
    out = str(tmp_path / "teacher")
    train(settings(**plain, model="vit_tiny_patch16_224", out=out))
    with pytest.raises(ConfigError, match="images of 32 pixels, and the teacher does not take them"):
        train(settings(distill={"teacher": out}))


def test_compiling_again_is_announced(settings, capsys, monkeypatch):
    monkeypatch.setattr("fasttrain.training.assemble.compiled", lambda model, mode: model)
    train(settings(compile="default"))
    assert "change in epoch 2, 3; torch.compile takes its time there again" in capsys.readouterr().err


def test_the_command_line_takes_both_forms(colour_tree, tmp_path):
    config = tmp_path / "run.yaml"
    config.write_text("size_schedule: {kind: ramp, from: 32, to: 64, start: 0, end: 2}\nepochs: 3\n")
    common = ["--data", str(colour_tree), "--model", "test_resnet", "--device", "cpu", "--config", str(config)]
    arguments = [*common, "--out", str(tmp_path / "run"), "--set", "batch_schedule={0: 4, 1: 8}", "--json"]
    done = CliRunner().invoke(app, ["train", *arguments])
    assert done.exit_code == 0, done.output
    records = RunFolder(tmp_path / "run").read_metrics()
    assert [(record["size"], record["batch_size"]) for record in records] == [(32, 4), (64, 8), (64, 8)]
    assert "size 64  batch size 8  train loss" in done.stderr


def test_the_live_line_tells_size_and_time_left(tmp_path, monkeypatch, capsys):
    table = EpochTable((EpochShape(10, 4, 5), EpochShape(20, 2, 10)), ("size",))
    now = iter([0.0, 100.0, 130.0])
    monkeypatch.setattr("fasttrain.training.monitor.time", SimpleNamespace(monotonic=lambda: next(now)))
    monitor = Monitor(RunFolder(tmp_path), table)
    loss = LaggedLoss(torch.device("cpu"))
    monitor.step(0, 1, loss, 1, 30.0, 3.0)  # a twenty-fifth of the pixels
    monitor.step(1, 1, loss, 1, 30.0, 3.0)  # 0.28 of them
    line = capsys.readouterr().err.splitlines()[-1]
    assert "epoch 2/2  size 20  step 1/10" in line and "0.1 images/s" in line
    assert line.endswith("ETA 1:29")  # 0.24 in 30 s, 0.72 to do; rounded down
