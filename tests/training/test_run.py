"""Whole runs on a handful of generated images."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fasttrain.base.config import load_settings
from fasttrain.base.errors import ConfigError, FasttrainError, TrainingError
from fasttrain.base.runs import RunFolder
from fasttrain.inference.labels import ClassMismatchError
from fasttrain.loading.loader import Loader
from fasttrain.models.opened import open_model
from fasttrain.models.weights import read_state_dict
from fasttrain.training import loop
from fasttrain.training.run import train
from fasttrain.training.settings import TrainSettings


@pytest.fixture
def settings(colour_tree, tmp_path):
    def make(**changes) -> TrainSettings:
        values = {
            "data": str(colour_tree),
            "model": "test_resnet",
            "out": str(tmp_path / "run"),
            "epochs": 3,
            "batch_size": 6,
            "size": 32,
            "device": "cpu",
            "drop_rate": 0.2,
            "optimizer": {"lr": 5e-3},
            "augment": {"scale": (0.5, 1.0)},
        }
        return load_settings(TrainSettings, {**values, **changes})

    return make


def test_a_run_learns_and_leaves_what_it_should(settings, colour_tree):
    result = train(settings(epochs=6, val=str(colour_tree), ema=0.9, label_smoothing=0.1))
    assert result.epochs == 6
    assert result.top1 is not None
    assert result.top1 > 0.9
    assert 0 <= result.data_wait_fraction <= 1
    names = {path.name for path in result.run.iterdir()}
    wanted = {"config.json", "start.json", "metrics.jsonl", "last.safetensors", "best.safetensors", "last.state.pt"}
    assert wanted | {"tensorboard"} <= names
    records = RunFolder(result.run).read_metrics()
    assert [record["epoch"] for record in records] == list(range(6))
    assert {"train_loss", "val_loss", "val_top1", "val_top1_raw", "lr", "images_per_s"} <= records[-1].keys()
    opened = open_model(result.run)
    assert opened.class_names == ["blue", "green", "red"]
    assert opened.view.size == 32
    assert opened.metrics["val_top1"] == result.top1


def run_all(settings_: TrainSettings) -> dict[str, torch.Tensor]:
    return read_state_dict(train(settings_).checkpoint)


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_the_same_seed_gives_the_same_weights_and_another_one_others(settings, tmp_path):
    first = run_all(settings(epochs=2))
    assert equal(first, run_all(settings(epochs=2, out=str(tmp_path / "again"), threads=1)))
    assert not equal(first, run_all(settings(epochs=2, out=str(tmp_path / "other"), seed=1)))


@pytest.mark.parametrize(("stop_after", "by"), [(2, signal.SIGINT), (4, signal.SIGTERM), (6, signal.SIGUSR1)])
def test_a_stopped_run_resumes_to_the_same_weights(settings, tmp_path, monkeypatch, stop_after, by):
    whole = run_all(settings(ema=0.5))
    interrupted = settings(ema=0.5, out=str(tmp_path / "stopped"))
    seen = 0
    real_step = loop.Stepper.step

    def step(self, *arguments):
        nonlocal seen
        real_step(self, *arguments)
        seen += 1
        if seen == stop_after:
            os.kill(os.getpid(), by)

    with monkeypatch.context() as patched:
        patched.setattr(loop.Stepper, "step", step)
        with pytest.raises(TrainingError, match=f"stopped by {by.name} .*--resume"):
            train(interrupted)
    assert seen == stop_after
    result = train(interrupted, resume=True)
    assert equal(whole, read_state_dict(result.checkpoint))
    assert [record["epoch"] for record in RunFolder(result.run).read_metrics()] == [0, 1, 2]


def test_a_killed_process_resumes_from_the_last_epoch(settings, tmp_path):
    whole = run_all(settings())
    other = settings(out=str(tmp_path / "killed"))
    code = (
        "import os, sys; from fasttrain.training import run; real = run.save_state\n"
        "def save(*a):\n    real(*a); os.kill(os.getpid(), 9)\n"
        "run.save_state = save\n"
        "from fasttrain.training.settings import TrainSettings\n"
        "run.train(TrainSettings.model_validate_json(sys.argv[1]))"
    )
    killed = subprocess.run([sys.executable, "-c", code, other.model_dump_json()], check=False, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert equal(whole, read_state_dict(train(other, resume=True).checkpoint))


def test_weights_are_never_overwritten_and_never_mixed_with_other_settings(settings):
    train(settings(epochs=1))
    with pytest.raises(ConfigError, match="--resume"):
        train(settings(epochs=1))
    with pytest.raises(ConfigError, match="epochs=1, not 2"):
        train(settings(epochs=2), resume=True)
    with pytest.raises(ConfigError, match="no run to resume"):
        train(settings(out="nowhere/run"), resume=True)


def test_data_that_cannot_be_trained_on_is_refused_before_the_first_step(settings, colour_tree, tmp_path):
    with pytest.raises(TrainingError, match="without a label"):
        train(settings(data=str(colour_tree / "red")))
    with pytest.raises(FasttrainError, match="batch size of 24 or less"):
        train(settings(batch_size=25))
    odd = tmp_path / "odd"
    for name in ("red", "purple"):
        (odd / name).mkdir(parents=True)
        (odd / name / "0.jpg").write_bytes((colour_tree / "red" / "0.jpg").read_bytes())
    with pytest.raises(ClassMismatchError, match="purple"):
        train(settings(val=str(odd)))
    assert not (tmp_path / "run" / "last.state.pt").exists()


def test_a_loss_that_is_not_finite_ends_the_run(settings):
    with pytest.raises(TrainingError, match="lower --lr"):
        train(settings(optimizer={"name": "sgd", "lr": 1e12}, schedule={"warmup_epochs": 0}))


def test_two_processes_train_and_evaluate_like_one(colour_tree, tmp_path):
    """Real torchrun: equal steps, one set of files, evaluation figures of the whole set."""
    common = ("--data", str(colour_tree), "--val", str(colour_tree), "--model", "test_resnet", "--size", "32")
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
        *("-m", "fasttrain.cli.app", "train", *common, "--epochs", "2", "--batch-size", "5"),
        *("--device", "cpu", "--threads", "1", "--out", str(tmp_path / "ddp"), "--json"),
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    single = evaluate_alone(Path(result["checkpoint"]), colour_tree)
    assert result["top1"] == pytest.approx(single["top1"])
    record = RunFolder(tmp_path / "ddp").read_metrics()[-1]
    assert record["val_loss"] == pytest.approx(single["loss"], rel=1e-5)


def evaluate_alone(checkpoint: Path, data: Path) -> dict:
    from fasttrain.inference.evaluate import evaluate

    opened = open_model(checkpoint)
    with Loader(data, 7, view=opened.view) as loader:
        return evaluate(opened.module, loader, opened.num_classes, opened.class_names)
