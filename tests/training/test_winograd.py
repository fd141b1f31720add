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
from fasttrain.training.run import STATE, train
from fasttrain.training.stepper import Stepper
from fasttrain.training.winograd import ConvolutionShape, choose_winograd

NONE = Passes(False, False, False)


@pytest.fixture(autouse=True)
def native():
    if not kernels.native_there():
        pytest.skip("the native kernels were not built")


def network():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
    )


@pytest.fixture
def estimated(monkeypatch):
    """The shapes that are asked about, of which those of 8 channels gain in two passes."""
    seen = []

    def gaining(shape):
        seen.append(shape)
        return Passes(True, shape.inputs == 8, False) if shape.inputs == 8 else NONE

    monkeypatch.setattr(ConvolutionShape, "gaining", gaining)
    return seen


def test_passes_that_gain_on_the_shapes_that_are_met_are_chosen(estimated):
    model = network().train()
    chosen = choose_winograd(model, "auto", 4, 10)
    assert chosen == {"2": Passes(True, True, False), "3": Passes(True, True, False)}
    first, second = ConvolutionShape(4, 3, 8, 10, 10), ConvolutionShape(4, 8, 8, 5, 5)
    assert estimated == [first, second, second]
    assert model.training
    assert choose_winograd(model, "off", 4, 10) == {}


def test_names_choose_without_an_estimate(estimated):
    assert choose_winograd(network(), ("0", "[3-9]"), 4, 10) == {"0": Passes(), "3": Passes()}
    assert not estimated
    with pytest.raises(ConfigError, match=r"winograd 'conv1' is no convolution of 3 x 3 .* those are 0, 2, 3"):
        choose_winograd(network(), ("conv1",), 4, 10)


def test_nothing_is_chosen_without_wide_vectors(estimated, monkeypatch):
    monkeypatch.setattr(kernels, "native_gains", lambda: False)
    assert choose_winograd(network(), "auto", 4, 10) == {}
    assert choose_winograd(network(), ("0",), 4, 10) == {"0": Passes()}


def test_tiles_cover_the_images():
    shape = ConvolutionShape(3, 8, 8, 5, 9)
    assert shape.tiles == 3 * 2 * 3
    assert shape.padding == 8 * 12 / (5 * 9)


@pytest.mark.parametrize(
    ("shape", "passes"),
    [
        (ConvolutionShape(32, 64, 64, 56, 56), Passes(True, True, True)),  # ResNet-18's four stages at 224 pixels
        (ConvolutionShape(32, 128, 128, 28, 28), Passes(True, True, True)),
        (ConvolutionShape(32, 256, 256, 14, 14), Passes(True, True, True)),
        (ConvolutionShape(32, 512, 512, 7, 7), Passes(True, True, False)),  # few tiles, large weights
        (ConvolutionShape(2, 512, 512, 7, 7), NONE),
        (ConvolutionShape(128, 3, 32, 56, 56), NONE),  # few channels: transforms take more than products
        (ConvolutionShape(128, 8, 8, 56, 56), NONE),
        (ConvolutionShape(2, 64, 64, 16, 16), NONE),  # too little work
    ],
)
def test_what_was_measured_to_gain_is_taken(shape, passes):
    assert shape.gaining() == passes


def test_a_run_says_what_it_chose_and_keeps_to_it_when_it_is_resumed(small_run, monkeypatch, capsys):
    monkeypatch.setattr(ConvolutionShape, "gaining", lambda shape: Passes(True, True, shape.inputs == 32))
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
    monkeypatch.setattr(ConvolutionShape, "gaining", lambda shape: pytest.fail("chosen again"))
    resumed = read_state_dict(train(stopped, resume=True).checkpoint)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_run_of_before_goes_on_without(small_run, estimated, capsys):
    run = small_run(epochs=1)
    state = load_state(train(run).run / STATE)
    del state["winograd"]
    save_state(Path(run.out) / STATE, state)
    capsys.readouterr()
    train(run, resume=True)
    assert "winograd" not in capsys.readouterr().err


@pytest.mark.parametrize("changes", [{"amp": "bf16"}, {"winograd": False}, {"amp": "bf16", "winograd": ["conv1.3"]}])
def test_runs_that_cannot_or_will_not_choose_nothing(small_run, estimated, changes, capsys):
    result = train(small_run(epochs=1, **changes))
    assert not estimated
    assert not load_state(result.run / STATE)["winograd"]
    assert ("so it is left out here" in capsys.readouterr().err) == (len(changes) == 2)


def test_a_model_that_does_not_take_the_images_is_left_alone(estimated):
    assert choose_winograd(nn.Sequential(network(), nn.Linear(3, 3)), "auto", 4, 10) == {}


def test_a_run_by_name_learns_as_one_without(small_run):
    runs = [train(small_run(name, winograd=way)) for name, way in (("a", "off"), ("b", ["layer*"]))]
    assert set(load_state(runs[1].run / STATE)["winograd"]) == {
        *("layer1.0.conv1", "layer1.0.conv2", "layer2.0.conv2", "layer4.0.conv2")
    }
    one, other = (read_state_dict(run.checkpoint) for run in runs)
    for name in one:
        torch.testing.assert_close(other[name], one[name], rtol=1e-2, atol=1e-3)
