"""Whole runs that learn to map objects, on a handful of generated photos."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from fasttrain.base.errors import ConfigError, WeightsError
from fasttrain.base.runs import RunFolder
from fasttrain.models.checkpoint import load_state
from fasttrain.models.create import create_model
from fasttrain.models.encoder import open_encoder
from fasttrain.models.objects.mapper import MapperSettings, ObjectMapper
from fasttrain.models.objects.opened import open_mapper
from fasttrain.models.objects.weights import load_mapper_weights
from fasttrain.models.opened import open_model
from fasttrain.models.weights import read_metadata, read_state_dict
from fasttrain.training.objects.run import train_mapper
from fasttrain.training.objects.settings import ObjectSettings
from fasttrain.training.optimizers import create_optimizer
from fasttrain.training.run import STATE

from ..stopping import stopped_after

Make = Callable[..., ObjectSettings]


def test_a_run_says_what_its_maps_show(settings: Make, capsys: pytest.CaptureFixture[str]) -> None:
    result = train_mapper(settings(ema=0.5))
    records = RunFolder(result.run).read_metrics()
    assert len(records) == result.epochs == 2
    assert {"train_loss", "lr", "border", "inside"} <= records[-1].keys()
    assert (result.border, result.inside) == (records[-1]["border"], records[-1]["inside"])
    assert result.shows == ("background" if result.border > result.inside else "objects")
    assert f"so high values are {result.shows}" in capsys.readouterr().err
    figures = {"border": result.border, "inside": result.inside}
    stored = read_metadata(result.checkpoint)["objects"]
    assert stored == {"model": "test_resnet", "stride": 16, "shows": result.shows, **figures}
    opened = open_mapper(result.run)
    assert opened.shows == result.shows and opened.view.size == 0
    assert opened.module.maps(torch.randn(1, 3, 64, 96)).shape == (1, 1, 4, 6)
    for open_other in (open_model, open_encoder):
        with pytest.raises(WeightsError, match="use `fasttrain objects masks`"):
            open_other(result.run)
    with pytest.raises(WeightsError, match="objects train"):
        open_mapper(result.run / "config.json")
    # Another run goes on from all of it.
    assert train_mapper(settings("again", weights=str(result.checkpoint), epochs=1)).epochs == 1
    assert "into all layers" in capsys.readouterr().err


@pytest.mark.parametrize("stop_after", [3, 4])
def test_a_stopped_run_resumes_to_the_same_weights_and_figures(stop_after: int, settings: Make) -> None:
    whole = train_mapper(settings())
    stopped = settings("stopped")
    with stopped_after(stop_after):
        train_mapper(stopped)
    assert load_state(RunFolder(stopped.out).path / STATE)["position"]["step"] == stop_after % 3
    resumed = train_mapper(stopped, resume=True)
    expected, found = read_state_dict(whole.checkpoint), read_state_dict(resumed.checkpoint)
    assert expected.keys() == found.keys() and all(torch.equal(expected[key], found[key]) for key in expected)
    assert (resumed.border, resumed.inside, resumed.shows) == (whole.border, whole.inside, whole.shows)


def test_what_is_not_given_is_as_published(settings: Make) -> None:
    chosen = settings(size=None, batch_size=32, epochs=10)
    plain = ObjectSettings(data="x")
    for one in (chosen, plain):
        assert (one.size, one.stride, one.epochs, one.batch_size) == (448, 16, 10, 32)
        assert (one.optimizer.name, one.optimizer.lr, one.optimizer.head_lr) == ("sgd", 1e-3, 10)
        assert (one.optimizer.momentum, one.optimizer.weight_decay) == (0.9, 1e-4)
        assert (one.schedule.kind, one.schedule.power, one.schedule.warmup_epochs) == ("poly", 0.9, 0)
        assert one.augment.scale == (0.8, 1.0) and one.augment.hflip == 0.5
    other = settings(optimizer={"name": "adamw", "lr": 1e-4})
    assert other.optimizer.momentum is None and other.optimizer.head_lr == 1


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"micro_batch": 4}, "smaller batch_size"),
        ({"val": "x"}, "val means nothing to mapping objects"),
        ({"swa_start": 1}, "swa_start means nothing"),
        ({"augment": {"mixup": 0.2}}, "augment.mixup means nothing"),
        ({"size": 48}, "crops of at least 64"),
        ({"contrast": {"least": 0.9, "most": 0.1}}, "least must be less"),
    ],
)
def test_settings_without_a_meaning_are_refused(changes: dict[str, Any], told: str, settings: Make) -> None:
    with pytest.raises(ConfigError, match=told):
        settings(**changes)


def test_all_parameters_learn_and_those_of_the_head_at_ten_times_the_rate(settings: Make) -> None:
    module = ObjectMapper(MapperSettings(model="test_resnet"))
    groups = create_optimizer(module, settings().optimizer).param_groups
    rates = {id(parameter): group["lr_scale"] for group in groups for parameter in group["params"]}
    assert len(rates) == len(list(module.parameters()))
    for name, parameter in module.named_parameters():
        assert rates[id(parameter)] == (10 if name.startswith("head.") else 1)
    undecayed = {id(p) for group in groups if group["weight_decay"] == 0 for p in group["params"]}
    assert {id(p) for p in module.parameters() if p.ndim == 1} == undecayed


@pytest.mark.parametrize(("model", "stride"), [("test_efficientnet", 16), ("test_convnext", 8), ("test_vit", 16)])
def test_backbones_have_the_stride_that_is_wanted(model: str, stride: int) -> None:
    module = ObjectMapper(MapperSettings(model=model, stride=stride)).eval()  # type: ignore[arg-type]
    with torch.inference_mode():
        assert module.maps(torch.randn(1, 3, 64, 96)).shape == (1, 1, 64 // stride, 96 // stride)


@pytest.mark.parametrize(("model", "told"), [("test_vit", "give stride=16"), ("resnet5", "did you mean")])
def test_a_backbone_that_cannot_is_told_so(model: str, told: str) -> None:
    with pytest.raises(WeightsError, match=told):
        ObjectMapper(MapperSettings(model=model, stride=32))


@pytest.mark.parametrize("classes", [0, 7])
def test_the_backbone_starts_from_a_classifier(classes: int, tmp_path) -> None:
    torch.manual_seed(0)
    classifier = create_model("test_resnet", classes)
    torch.save(classifier.state_dict(), tmp_path / "classifier.pth")
    made_of = MapperSettings(model="test_resnet")
    module = ObjectMapper(made_of).eval()
    head = module.head.conv.weight.clone()  # type: ignore[union-attr, operator]
    _, whole = load_mapper_weights(module, made_of, tmp_path / "classifier.pth")
    assert not whole and torch.equal(module.head.conv.weight, head)  # type: ignore[union-attr, arg-type]
    theirs = classifier.state_dict()
    for name, value in module.encoder.state_dict().items():
        np.testing.assert_array_equal(value, theirs[name])
    with pytest.raises(WeightsError, match="do not fit"):
        load_mapper_weights(
            ObjectMapper(MapperSettings(model="test_efficientnet")),
            MapperSettings(model="test_efficientnet"),
            tmp_path / "classifier.pth",
        )
