"""Which convolutions take Winograd's way, and that a run keeps to what was chosen."""

from pathlib import Path

import pytest
import torch
from torch import nn

from fasttrain.base.errors import ConfigError, TrainingError
from fasttrain.kernels import winograd as kernels
from fasttrain.models.checkpoint import load_state, save_state
from fasttrain.models.weights import read_state_dict
from fasttrain.models.winograd import Passes
from fasttrain.training import winograd
from fasttrain.training.run import STATE, train
from fasttrain.training.stepper import Stepper
from fasttrain.training.winograd import ConvolutionShape, choose_winograd

BY_PIXELS = torch.channels_last


@pytest.fixture(autouse=True)
def native():
    if not kernels.native_there():
        pytest.skip("the native kernels were not built")


def network():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
    )


@pytest.fixture
def measured(monkeypatch):
    """The shapes that are measured, of which those of 8 channels gain in two passes."""
    seen = []

    def measure(shape, memory_format):
        seen.append(shape)
        return Passes(True, shape.inputs == 8, False) if shape.inputs == 8 else Passes(False, False, False)

    monkeypatch.setattr(winograd, "measure", measure)
    monkeypatch.setattr(winograd, "LEAST_WORK", 0)
    return seen


def test_each_shape_is_measured_once_and_the_gaining_passes_are_chosen(measured):
    model = network().train()
    chosen = choose_winograd(model, "auto", 4, 10, BY_PIXELS)
    assert chosen == {"2": Passes(True, True, False), "3": Passes(True, True, False)}
    assert measured == [ConvolutionShape(4, 3, 8, 10, 10), ConvolutionShape(4, 8, 8, 5, 5)]
    assert model.training
    assert choose_winograd(model, "off", 4, 10, BY_PIXELS) == {}


def test_small_layers_are_not_measured(measured, monkeypatch):
    monkeypatch.setattr(winograd, "LEAST_WORK", 18 * 4 * 10 * 10 * 3 * 8 + 1)
    assert choose_winograd(network(), "auto", 4, 10, BY_PIXELS) == {}
    assert not measured


def test_names_choose_without_a_measurement(measured):
    assert choose_winograd(network(), ("0", "[3-9]"), 4, 10, BY_PIXELS) == {"0": Passes(), "3": Passes()}
    assert not measured
    with pytest.raises(ConfigError, match=r"winograd 'conv1' is no convolution of 3 x 3 .* those are 0, 2, 3"):
        choose_winograd(network(), ("conv1",), 4, 10, BY_PIXELS)


def test_a_measurement_takes_what_is_faster_and_the_same(monkeypatch):
    shape = ConvolutionShape(2, 8, 8, 6, 6)
    monkeypatch.setattr(winograd, "LEAST_GAIN", 0.0)
    assert winograd.measure(shape, BY_PIXELS) == Passes(True, True, True)
    monkeypatch.setattr(winograd, "LARGEST_DIFFERENCE", 0.0)
    assert winograd.measure(shape, BY_PIXELS) == Passes(False, False, False)
    monkeypatch.setattr(winograd, "LARGEST_DIFFERENCE", 1e-4)
    monkeypatch.setattr(winograd, "LEAST_GAIN", 1e9)
    assert winograd.measure(shape, BY_PIXELS) == Passes(False, False, False)


def test_a_sample_is_as_large_as_a_measurement_needs():
    assert ConvolutionShape(500, 64, 64, 56, 56).sample().images == 5
    assert ConvolutionShape(500, 512, 512, 7, 7).sample().images == 193
    assert ConvolutionShape(3, 512, 512, 7, 7).sample().images == 3


def test_a_run_says_what_it_chose_and_keeps_to_it_when_it_is_resumed(
    small_run, tmp_path, measured, monkeypatch, capsys
):
    monkeypatch.setattr(winograd, "measure", lambda shape, _: Passes(True, True, shape.inputs == 32))
    whole = read_state_dict(train(small_run("whole")).checkpoint)
    assert "winograd: 6 of 6 convolutions of 3 x 3" in capsys.readouterr().err
    stopped = small_run("stopped")
    step, real = 0, Stepper.step

    def stop_after_five(self, *arguments):
        nonlocal step
        if step == 5:
            raise TrainingError("enough")
        step += 1
        return real(self, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(Stepper, "step", stop_after_five)
        with pytest.raises(TrainingError, match="enough"):
            train(stopped)
    stored = load_state(Path(stopped.out) / STATE)["winograd"]
    assert len(stored) == 6
    assert [True, True, False] in stored.values()
    monkeypatch.setattr(winograd, "measure", lambda shape, _: pytest.fail("measured again"))
    resumed = read_state_dict(train(stopped, resume=True).checkpoint)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_run_of_before_goes_on_without(small_run, measured, capsys):
    run = small_run(epochs=1)
    state = load_state(train(run).run / STATE)
    del state["winograd"]
    save_state(Path(run.out) / STATE, state)
    capsys.readouterr()
    train(run, resume=True)
    assert "winograd" not in capsys.readouterr().err


@pytest.mark.parametrize("changes", [{"amp": "bf16"}, {"winograd": False}, {"amp": "bf16", "winograd": ["conv1.3"]}])
def test_runs_that_cannot_or_will_not_measure_nothing(small_run, measured, changes, capsys):
    result = train(small_run(epochs=1, **changes))
    assert not measured
    assert not load_state(result.run / STATE)["winograd"]
    assert ("so it is left out here" in capsys.readouterr().err) == (len(changes) == 2)


def test_a_model_that_does_not_take_the_images_is_left_alone(measured):
    assert choose_winograd(nn.Sequential(network(), nn.Linear(3, 3)), "auto", 4, 10, BY_PIXELS) == {}


def test_a_run_by_name_learns_as_one_without(small_run):
    runs = [train(small_run(name, winograd=way)) for name, way in (("a", "off"), ("b", ["layer*"]))]
    assert set(load_state(runs[1].run / STATE)["winograd"]) == {
        *("layer1.0.conv1", "layer1.0.conv2", "layer2.0.conv2", "layer4.0.conv2")
    }
    one, other = (read_state_dict(run.checkpoint) for run in runs)
    for name in one:
        torch.testing.assert_close(other[name], one[name], rtol=1e-2, atol=1e-3)
