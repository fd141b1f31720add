"""Convolutions that take Winograd's way stand where torch's stood."""

import copy
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fasttrain.kernels import winograd as kernels
from fasttrain.models import winograd
from fasttrain.models.winograd import Passes, WinogradConv2d, use_winograd, winograd_passes


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 12, 3, padding=1),
        nn.BatchNorm2d(12),
        nn.GELU(),
        nn.Conv2d(12, 20, 3, padding=1, bias=False),
        nn.MaxPool2d(2),
        nn.Conv2d(20, 9, 3, padding=1, stride=2),
        nn.Flatten(),
        nn.LazyLinear(5),
    )


def pair():
    """A network, and one of the same weights whose suitable convolutions take Winograd's way."""
    plain = network()
    plain(torch.zeros(1, 3, 13, 10))
    other = copy.deepcopy(plain)
    use_winograd(other, {"0": Passes(), "3": Passes(), "5": Passes(), "gone": Passes()})
    return plain, other


@pytest.fixture
def calls(monkeypatch):
    """The calls of the kernels."""
    if not kernels.native_there():
        pytest.skip("the native kernels were not built")
    seen = []
    for name in ("convolve", "gradient_by_images", "gradient_by_weight"):
        real = getattr(winograd, name)
        monkeypatch.setattr(winograd, name, lambda *a, real=real, name=name: (seen.append(name), real(*a))[1])
    return seen


@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
def test_training_steps_are_those_of_the_plain_network(memory_format, calls):
    plain, other = (one.to(memory_format=memory_format) for one in pair())
    for step in range(3):
        generator = torch.Generator().manual_seed(step)
        images = torch.randn(7, 3, 13, 10, generator=generator).contiguous(memory_format=memory_format)
        for model in (plain, other):
            model.zero_grad()
            F.cross_entropy(model(images), torch.arange(7) % 5).backward()
            with torch.no_grad():
                for weight in model.parameters():
                    weight -= 0.1 * weight.grad
    assert set(calls) == {"convolve", "gradient_by_images", "gradient_by_weight"}
    for one, two in zip(plain.state_dict().values(), other.state_dict().values(), strict=True):
        torch.testing.assert_close(two, one, rtol=1e-4, atol=1e-5)


def test_names_and_values_of_a_state_dict_stay():
    plain, other = pair()
    assert plain.state_dict().keys() == other.state_dict().keys()
    network_ = network()
    network_(torch.zeros(1, 3, 13, 10))
    network_.load_state_dict(other.state_dict())
    assert winograd_passes(other) == {"0": Passes(), "3": Passes()}
    assert winograd_passes(copy.deepcopy(other)) == winograd_passes(other)


def convolution(**options):
    torch.manual_seed(1)
    module = nn.Conv2d(4, 6, 3, padding=1, **options)
    use_winograd(module, {"": Passes()})
    assert type(module) is WinogradConv2d
    return module


def test_passes_go_each_its_own_way(calls):
    module, images = convolution(), torch.randn(2, 4, 6, 6, requires_grad=True)
    names = ("convolve", "gradient_by_images", "gradient_by_weight")
    module.passes = Passes()
    gradients = torch.autograd.grad(module(images).square().sum(), [images, *module.parameters()])
    for number, name in enumerate(names):
        module.passes = Passes(*(number == other for other in range(3)))
        calls.clear()
        again = torch.autograd.grad(module(images).square().sum(), [images, *module.parameters()])
        assert calls == [name]
        for one, two in zip(gradients, again, strict=True):
            torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-4)


def test_only_what_is_asked_for_is_computed(calls):
    module = convolution()
    module(torch.randn(2, 4, 6, 6)).sum().backward()
    assert calls == ["convolve", "gradient_by_weight"]
    calls.clear()
    with torch.no_grad():
        module(torch.randn(2, 4, 6, 6))
    assert calls == ["convolve"]


def test_gradients_of_gradients_are_torchs(calls):
    module, images = convolution(bias=False), torch.randn(1, 4, 5, 5, requires_grad=True)
    plain = nn.Conv2d(4, 6, 3, padding=1, bias=False)
    plain.load_state_dict(module.state_dict())
    found = []
    for one in (module, plain):
        (first,) = torch.autograd.grad(one(images).tanh().sum(), images, create_graph=True)
        found.append(torch.autograd.grad(first.square().sum(), [images, one.weight]))
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


def test_all_else_takes_torchs_way(calls):
    module = convolution()
    images = torch.randn(2, 4, 6, 6)
    assert module.double()(images.double()).dtype == torch.float64
    module.float()
    with torch.autocast("cpu", torch.bfloat16):
        assert module(images).dtype == torch.bfloat16
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # tracing is on its way out, but still met
        torch.jit.trace(module, images, check_trace=False)
    exported = torch.export.export(module, (images,))
    assert module(torch.randn(4, 6, 6)).shape == (6, 6, 6)
    assert module(torch.randn(0, 4, 6, 6)).shape == (0, 6, 6, 6)
    torch.func.vmap(module)(images[None])
    assert not calls
    torch.testing.assert_close(exported.module()(images), module(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "other",
    [
        nn.Conv2d(4, 4, 3),
        nn.Conv2d(4, 4, 3, padding=1, stride=2),
        nn.Conv2d(4, 4, 3, padding=1, groups=2),
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(4, 4, 3, padding=2, dilation=2),
        nn.Conv2d(4, 4, 5, padding=2),
        nn.ConvTranspose2d(4, 4, 3, padding=1),
    ],
)
def test_other_convolutions_are_left_alone(other):
    kind = type(other)
    use_winograd(other, {"": Passes()})
    assert type(other) is kind
