"""Soups that are measured and finished: batch normalisation anew, the greedy choice, the checkpoint that results."""

import json

import pytest
import torch
from torch.optim.swa_utils import update_bn

from fasttrain.base.config import load_settings
from fasttrain.base.errors import ConfigError
from fasttrain.inference.soup import Tasting, make_soup
from fasttrain.inference.statistics import estimate_statistics
from fasttrain.loading.loader import Loader
from fasttrain.models.checkpoint import CheckpointInfo, save_weights
from fasttrain.models.opened import open_model
from fasttrain.models.weights import read_metadata, read_state_dict
from fasttrain.training.run import train
from fasttrain.training.settings import TrainSettings


@pytest.fixture(scope="module")
def run(colour_tree, tmp_path_factory):
    """A run that keeps its last three epochs."""
    values = {"data": str(colour_tree), "model": "test_resnet", "out": str(tmp_path_factory.mktemp("run") / "r")}
    values |= {"epochs": 4, "batch_size": 6, "size": 32, "device": "cpu", "keep_last": 3, "val": str(colour_tree)}
    values |= {"optimizer": {"lr": 5e-3}}
    return train(load_settings(TrainSettings, values)).run


@pytest.fixture
def ruined(run, tmp_path):
    """A checkpoint of the run whose classifier was turned round."""
    source = run / "epoch_0003.safetensors"
    state = read_state_dict(source)
    state["fc.weight"] = -8 * state["fc.weight"]
    save_weights(tmp_path / "ruined.safetensors", state, CheckpointInfo(**read_metadata(source)))
    return tmp_path / "ruined.safetensors"


def test_a_run_keeps_the_checkpoints_of_its_last_epochs(run):
    kept = sorted(path.name for path in run.glob("epoch_*"))
    assert kept == ["epoch_0002.safetensors", "epoch_0003.safetensors", "epoch_0004.safetensors"]
    last, epoch = (read_state_dict(run / name) for name in ("last.safetensors", kept[-1]))
    assert all(torch.equal(last[key], epoch[key]) for key in last)


def test_the_mean_is_a_checkpoint_like_any_other(run, tmp_path):
    paths, out = sorted(run.glob("epoch_*")), tmp_path / "s.safetensors"
    report = make_soup(paths, out, "last-k")
    assert (report["statistics"], report["weights"]) == ("averaged", [1 / 3] * 3)
    assert report["integers"] and all("num_batches" in key for key in report["integers"])
    opened = open_model(out)
    assert (opened.class_names, opened.view.size) == (["blue", "green", "red"], 32)
    record = read_metadata(out)
    assert (record["epoch"], record["averaged"], record["metrics"]) == (4, True, {})
    assert record["soup"]["chosen_on"] is None
    assert [entry["file"] for entry in record["soup"]["checkpoints"]] == [path.name for path in paths]
    states = [read_state_dict(path) for path in paths]
    mean = torch.stack([state["conv1.0.weight"] for state in states]).mean(0)
    torch.testing.assert_close(read_state_dict(out)["conv1.0.weight"], mean)


def test_statistics_are_those_of_the_training_images(run, colour_tree, tmp_path):
    """Against torch's own `update_bn`, over the same batches."""
    paths = sorted(run.glob("epoch_*"))
    tasting = Tasting(bn_data=colour_tree, batch_size=8)
    report = make_soup(paths, tmp_path / "s.safetensors", tasting=tasting)
    make_soup(paths, tmp_path / "plain.safetensors")
    assert report["statistics"] == "estimated"
    reference = open_model(tmp_path / "plain.safetensors")
    with Loader(colour_tree, 8, view=reference.view, order="random") as loader:
        update_bn((batch.images for batch in loader), reference.module)
    expected, found = reference.module.state_dict(), read_state_dict(tmp_path / "s.safetensors")
    plain = read_state_dict(tmp_path / "plain.safetensors")
    for key in found:
        torch.testing.assert_close(found[key], expected[key].contiguous(), rtol=1e-5, atol=1e-6)
    assert not torch.allclose(found["bn1.running_mean"], plain["bn1.running_mean"])
    assert torch.equal(found["fc.weight"], plain["fc.weight"])
    assert int(found["bn1.num_batches_tracked"]) == 3
    few = Tasting(bn_data=colour_tree, bn_batches=2, batch_size=8)
    make_soup(paths, tmp_path / "few.safetensors", tasting=few)
    assert int(read_state_dict(tmp_path / "few.safetensors")["bn1.num_batches_tracked"]) == 2


def test_a_model_without_batch_normalisation_stays_as_it_is(colour_tree):
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 3), torch.nn.LayerNorm(3))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with Loader(colour_tree, 8) as loader:
        estimate_statistics(model, loader, "off")
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_greedy_leaves_the_ruined_one_out_and_says_on_what_it_was_chosen(run, ruined, colour_tree, tmp_path):
    paths = [ruined, run / "epoch_0004.safetensors", run / "epoch_0003.safetensors"]
    tasting = Tasting(val=str(colour_tree), bn_data=str(colour_tree), batch_size=8)
    report = make_soup(paths, tmp_path / "s.safetensors", "greedy", tasting=tasting)
    assert str(ruined) not in report["checkpoints"]
    assert report["tried"][-1]["checkpoint"] == str(ruined)
    assert not report["tried"][-1]["kept"]
    assert report["top1"] == max(entry["soup"] for entry in report["tried"])
    record = read_metadata(tmp_path / "s.safetensors")
    assert record["soup"]["chosen_on"] == record["metrics"]["chosen_on"] == str(colour_tree)
    assert record["metrics"]["val_top1"] == report["top1"]
    assert json.dumps(record)
    spoilt = make_soup(paths, tmp_path / "u.safetensors", tasting=tasting)
    assert spoilt["top1"] < report["top1"]
    assert "chosen_on" not in read_metadata(tmp_path / "u.safetensors")["metrics"]


@pytest.mark.parametrize(
    ("method", "weights", "tasting", "message"),
    [
        ("greedy", None, Tasting(), "say which \\(--val\\)"),
        ("weighted", None, Tasting(), "weights belong to the method weighted"),
        ("uniform", [1.0, 1.0], Tasting(), "weights belong to the method weighted"),
        ("uniform", None, Tasting(bn_batches=3), "--bn-data"),
        ("mixed", None, Tasting(), "not by 'mixed'"),
    ],
)
def test_methods_that_lack_something(run, tmp_path, method, weights, tasting, message):
    with pytest.raises(ConfigError, match=message):
        make_soup(sorted(run.glob("epoch_*"))[:2], tmp_path / "s.safetensors", method, weights, tasting)
    assert not (tmp_path / "s.safetensors").exists()
