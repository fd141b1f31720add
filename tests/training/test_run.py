"""Whole runs on a handful of generated images."""

import json
import os
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fasttrain.base.errors import ConfigError, FasttrainError, LoaderError, TrainingError
from fasttrain.base.runs import RunFolder
from fasttrain.beton_build.build import build
from fasttrain.beton_build.options import BuildOptions
from fasttrain.beton_build.sources import read_source
from fasttrain.inference.labels import ClassMismatchError
from fasttrain.loading.loader import Loader
from fasttrain.loading.optional import why_absent
from fasttrain.models.checkpoint import load_state, save_state
from fasttrain.models.opened import open_model
from fasttrain.models.weights import read_state_dict
from fasttrain.training.run import STATE, Trainer, train
from fasttrain.training.settings import TrainSettings
from fasttrain.training.stepper import Stepper

from .stopping import stopped_after


@pytest.fixture
def settings(small_run):
    return partial(small_run, augment={"scale": (0.5, 1.0)})


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
    assert opened.train_counts == [8, 8, 8]


def test_ffcv_is_for_training_alone(settings, colour_tree, tmp_path):
    """Validation may want a filter that FFCV has not, and has to notice broken images."""
    if (reason := why_absent("ffcv")) is not None:
        pytest.skip(reason)
    beton = str(tmp_path / "colours.beton")
    build(read_source(colour_tree), beton, BuildOptions(workers=1))
    chosen = settings(data=beton, val=beton, backend="ffcv")
    with Trainer(chosen, torch.device("cpu"), RunFolder(chosen.out)) as trainer:
        assert type(trainer.train_loader._backend).__name__ == "FfcvBackend"
        assert type(trainer.validation.loaders["val"]._backend).__name__ != "FfcvBackend"


def run_all(settings_: TrainSettings) -> dict[str, torch.Tensor]:
    return read_state_dict(train(settings_).checkpoint)


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_the_same_seed_gives_the_same_weights_and_another_one_others(settings, tmp_path):
    first = run_all(settings(epochs=2))
    assert equal(first, run_all(settings(epochs=2, out=str(tmp_path / "again"), threads=1)))
    assert not equal(first, run_all(settings(epochs=2, out=str(tmp_path / "other"), seed=1)))


@pytest.mark.parametrize(
    ("stop_after", "by", "changes"),
    [
        (2, signal.SIGINT, {"ema": 0.5}),
        (4, signal.SIGTERM, {"amp": "bf16"}),
        (6, signal.SIGUSR1, {"amp": "bf16", "optimizer": {"name": "sgd", "lr": 0.01}}),
        (5, signal.SIGUSR1, {"sampling": {"class_balance": 1, "rest": "wrap", "draws": 20, "order": "windowed"}}),
    ],
)
def test_a_stopped_run_resumes_to_the_same_weights(settings, tmp_path, stop_after, by, changes):
    whole = run_all(settings(**changes))
    interrupted = settings(**changes, out=str(tmp_path / "stopped"))
    with stopped_after(stop_after, by, message="--resume"):
        train(interrupted)
    result = train(interrupted, resume=True)
    assert equal(whole, read_state_dict(result.checkpoint))
    losses = [(record["epoch"], record["train_loss"]) for record in RunFolder(result.run).read_metrics()]
    undisturbed = RunFolder(tmp_path / "run").read_metrics()
    assert losses == [(record["epoch"], record["train_loss"]) for record in undisturbed] and len(losses) == 3


def test_weights_are_never_overwritten_and_never_mixed_with_other_settings(settings):
    train(settings(epochs=1))
    with pytest.raises(ConfigError, match="--resume"):
        train(settings(epochs=1))
    with pytest.raises(ConfigError, match="epochs=1, not 2"):
        train(settings(epochs=2), resume=True)
    with pytest.raises(ConfigError, match="model='test_resnet', not 'test_vit'"):
        train(settings(epochs=1, model="test_vit"), resume=True)
    assert train(settings(epochs=1, threads=1, checkpoint_minutes=3), resume=True).epochs == 1  # was complete


def test_resuming_what_never_began_begins(settings, capsys):
    assert train(settings(epochs=1), resume=True).epochs == 1
    assert "holds nothing to resume, so the run begins" in capsys.readouterr().err


def test_a_run_is_not_resumed_on_data_of_other_classes(settings, colour_tree, tmp_path):
    folder = tmp_path / "images"
    shutil.copytree(colour_tree, folder)
    train(settings(data=str(folder), epochs=1))
    (folder / "green").rename(folder / "yellow")
    with pytest.raises(LoaderError, match="another data set"):
        train(settings(data=str(folder), epochs=1), resume=True)
    shutil.rmtree(folder / "yellow")
    with pytest.raises(LoaderError, match="another data set"):
        train(settings(data=str(folder), epochs=1), resume=True)


def test_a_state_of_another_version_is_refused(settings):
    run = train(settings(epochs=1)).run
    state = load_state(run / STATE)
    save_state(run / STATE, {**state, "version": 1})
    with pytest.raises(ConfigError, match="saved by another version"):
        train(settings(epochs=1), resume=True)


@pytest.mark.parametrize("kills", [4, pytest.param(20, marks=pytest.mark.thorough)])
def test_a_run_killed_again_and_again_ends_in_the_same_bits(settings, colour_tree, tmp_path, kills):
    """Killed at random moments, each time with SIGKILL; the state is saved after every step or two."""
    chosen = settings(epochs=3, val=str(colour_tree), ema=0.5, threads=1, checkpoint_minutes=1e-4)
    driver = Path(__file__).with_name("kill_driver.py")
    command = [sys.executable, str(driver), chosen.model_dump_json(), str(tmp_path), str(kills)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["failures"] == [] and report["kills"] == kills and report["under_way"] > 0


def test_the_loss_curve_has_not_changed(tmp_path):
    """Pinned figures: whoever changes them changes the training of everybody."""
    rng = np.random.default_rng(0)
    for label in range(3):
        (tmp_path / "data" / str(label)).mkdir(parents=True)
        for number in range(16):
            pixels = rng.integers(0, 160, (36, 40, 3), np.uint8)
            pixels[..., label] += 60
            Image.fromarray(pixels).save(tmp_path / "data" / str(label) / f"{number}.png")
    values = {
        "data": str(tmp_path / "data"),
        "val": str(tmp_path / "data"),
        "model": "test_resnet",
        "out": str(tmp_path / "run"),
        "epochs": 4,
        "batch_size": 16,
        "size": 32,
        "device": "cpu",
        "ema": 0.8,
        "label_smoothing": 0.1,
        "optimizer": {"lr": 2e-3, "clip_norm": 1.0},
        "augment": {"scale": (0.3, 1.0), "color_jitter": 0.2},
    }
    run = train(TrainSettings.model_validate(values)).run
    records = RunFolder(run).read_metrics()
    assert [record["train_loss"] for record in records] == pytest.approx(TRAIN_LOSSES, rel=0.01)
    assert [record["val_loss"] for record in records] == pytest.approx(VAL_LOSSES, rel=0.01)


TRAIN_LOSSES = [1.1511, 0.6775, 0.4429, 0.3735]
VAL_LOSSES = [1.0949, 1.0703, 1.0248, 0.9654]


def test_a_part_of_the_samples_and_balanced_classes(settings, colour_tree, tmp_path):
    ids = [f"{name}/{number}.jpg" for name, count in (("red", 8), ("green", 4), ("blue", 2)) for number in range(count)]
    (tmp_path / "ids.txt").write_text("\n".join(ids))
    (tmp_path / "val.txt").write_text("red/7.jpg\ngreen/7.jpg\n")
    seen = []
    real = Stepper.step

    def step(self, batch, *others):
        seen.extend(batch.labels.tolist())
        real(self, batch, *others)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Stepper, "step", step)
        train(
            settings(
                ids=str(tmp_path / "ids.txt"),
                val=str(colour_tree),
                val_ids=str(tmp_path / "val.txt"),
                epochs=2,
                batch_size=4,
                sampling={"class_balance": 1, "draws": 12, "rest": "wrap"},
            )
        )
    assert np.bincount(seen).tolist() == [8, 8, 8]


def test_broken_images_are_reported_at_the_end_even_after_a_resume(settings, colour_tree, tmp_path):
    folder = tmp_path / "images"
    shutil.copytree(colour_tree, folder)
    for name in ("red/1.jpg", "blue/2.jpg"):
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(whole[: len(whole) // 2])
    chosen = settings(data=str(folder), on_error="skip", epochs=2, batch_size=24, sampling={"rest": "wrap"})
    with stopped_after(1, message="after epoch 1") as stopped:
        train(chosen)
    assert stopped.value.exit_code == 143
    for _ in range(2):  # the second time there is nothing left to do
        assert {entry["id"] for entry in train(chosen, resume=True).skipped} == {"red/1.jpg", "blue/2.jpg"}


def test_data_that_cannot_be_trained_on_is_refused_before_the_first_step(settings, colour_tree, tmp_path):
    with pytest.raises(TrainingError, match="without a label"):
        train(settings(data=str(colour_tree / "red")))
    with pytest.raises(FasttrainError, match="batch size of 24 or less"):
        train(settings(batch_size=25))
    with pytest.raises(TrainingError, match="holds no labelled sample, so there is nothing to validate on"):
        train(settings(val=str(colour_tree / "red")))
    odd = tmp_path / "odd"
    for name in ("red", "purple"):
        (odd / name).mkdir(parents=True)
        (odd / name / "0.jpg").write_bytes((colour_tree / "red" / "0.jpg").read_bytes())
    with pytest.raises(ClassMismatchError, match="purple"):
        train(settings(val=str(odd)))
    assert not (tmp_path / "run" / "last.state.pt").exists()


def test_a_loss_that_is_not_finite_ends_the_run(settings):
    diverging = settings(
        optimizer={"name": "sgd", "lr": 1e12}, schedule={"warmup_epochs": 0}, epochs=9, checkpoint_minutes=1e-9
    )
    with pytest.raises(TrainingError, match="lower --lr"):
        train(diverging)
    saved = Path(diverging.out) / STATE
    assert not saved.exists() or all(value.isfinite().all() for value in load_state(saved)["ranks"][0]["loss"])


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


def test_named_validation_sets_have_their_figures_and_a_rule_says_which_epoch_is_best(settings, colour_tree):
    sets = {"same": str(colour_tree), "again": [str(colour_tree)]}
    result = train(settings(extra_val=sets, best="-train_loss if val_mean_top1 >= 0 else None", epochs=2))
    last = RunFolder(result.run).read_metrics()[-1]
    assert last["val_same_top1"] == last["val_again_top1"] == last["val_mean_top1"]
    assert {"val_same_loss", "val_again_macro_f1"} <= last.keys() and "val_top1" not in last
    assert result.top1 is None
    assert result.best_epoch == 1  # the loss falls
    assert (result.run / "best.safetensors").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"best": "val_top1"}, "no figure 'val_top1'"),
        ({"extra_val": {"mean": "x"}}, "cannot name a data set"),
        ({"optimizer": {"name": "adamm"}}, "did you mean 'adam"),
        ({"freeze": ["blocks.*"]}, "no parameter matches"),
    ],
)
def test_wrong_settings_end_the_run_before_its_first_step(settings, changes, words):
    with pytest.raises(ConfigError, match=words):
        train(settings(**changes))


def test_the_mean_of_the_last_epochs_is_kept_with_statistics_of_its_own(settings, colour_tree, tmp_path):
    rates = {"schedule": {"kind": "constant"}, "val": str(colour_tree)}
    result = train(settings(epochs=6, swa_start=4, **rates))
    kept = read_state_dict(result.run / "swa.safetensors")
    ends = [
        read_state_dict(train(settings(epochs=epochs, out=str(tmp_path / str(epochs)), **rates)).checkpoint)
        for epochs in (4, 5, 6)
    ]
    for name in ("conv1.0.weight", "fc.bias"):
        torch.testing.assert_close(kept[name], torch.stack([end[name] for end in ends]).mean(0))
    assert not torch.allclose(kept["bn1.running_mean"], ends[-1]["bn1.running_mean"])
    assert int(kept["bn1.num_batches_tracked"]) == 4  # of the one pass
    assert open_model(result.run / "swa.safetensors").metrics["epochs_averaged"] == 3
    assert result.swa_top1 is not None
    with pytest.raises(ConfigError, match="behind the last of 3 epochs"):
        settings(swa_start=9)


def test_a_resumed_run_has_the_same_mean(settings, tmp_path):
    changes = {"epochs": 3, "swa_start": 1}
    whole = train(settings(**changes)).run / "swa.safetensors"
    folder = tmp_path / "halves"
    with stopped_after(10):
        train(settings(out=str(folder), **changes))
    halves = train(settings(out=str(folder), **changes), resume=True).run / "swa.safetensors"
    assert equal(read_state_dict(whole), read_state_dict(halves))


@pytest.mark.parametrize(("room", "words"), [(4, r"but 3 do: --set micro_batch=3"), (0, "not even one does")])
def test_a_batch_that_does_not_fit_is_answered_with_the_size_that_would(settings, monkeypatch, room, words):
    real = Stepper._losses

    def losses(self, batch, *targets, **options):
        if len(batch.images) > room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(self, batch, *targets, **options)

    monkeypatch.setattr(Stepper, "_losses", losses)
    with pytest.raises(TrainingError, match=f"6 images do not fit into the memory of cpu at a time, {words}|{words}"):
        train(settings())
