"""Depthwise convolutions with gradients of our own stand where torch's and timm's stood."""

import copy
import warnings

import pytest
import torch
import torch.nn.functional as F
from timm.layers.conv2d_same import Conv2dSame
from torch import nn

from fasttrain.kernels import depthwise as kernels
from fasttrain.models.depthwise import DepthwiseConv2d, DepthwiseConv2dSame, use_depthwise


@pytest.fixture
def calls(monkeypatch):
    """The calls of the kernel: which gradients each was asked for."""
    if not kernels.native_gains():
        pytest.skip("there are no native kernels with vectors")
    seen, real = [], kernels.gradients

    def gradients(*arrays, **options):
        seen.append([one is not None for one in options["out"]])
        return real(*arrays, **options)

    monkeypatch.setattr(kernels, "gradients", gradients)
    return seen


def pair():
    """A network, and one of the same weights whose depthwise convolutions have our gradients."""
    torch.manual_seed(0)
    plain = nn.Sequential(
        nn.Conv2d(3, 20, 1),
        nn.Conv2d(20, 20, 3, padding=1, groups=20, bias=False),
        nn.BatchNorm2d(20),
        nn.GELU(),
        Conv2dSame(20, 20, 5, stride=2, groups=20),
        nn.Conv2d(20, 20, 3, padding=1, groups=10),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(20, 5),
    ).to(memory_format=torch.channels_last)
    other = copy.deepcopy(plain)
    assert use_depthwise(other) == 2
    assert [type(other[place]) for place in (1, 4, 5)] == [DepthwiseConv2d, DepthwiseConv2dSame, nn.Conv2d]
    return plain, other


def test_training_steps_are_those_of_the_plain_network(calls):
    plain, other = pair()
    for step in range(3):
        generator = torch.Generator().manual_seed(step)
        images = torch.randn(7, 3, 13, 10, generator=generator).contiguous(memory_format=torch.channels_last)
        for model in (plain, other):
            model.zero_grad()
            F.cross_entropy(model(images), torch.arange(7) % 5).backward()
            with torch.no_grad():
                for weight in model.parameters():
                    weight -= 0.1 * weight.grad
    assert calls == [[True, True]] * 6
    assert plain.state_dict().keys() == other.state_dict().keys()
    for one, two in zip(plain.state_dict().values(), other.state_dict().values(), strict=True):
        torch.testing.assert_close(two, one, rtol=1e-5, atol=1e-6)


def convolution():
    torch.manual_seed(1)
    module = nn.Conv2d(4, 4, 3, padding=1, groups=4)
    assert use_depthwise(module) == 1
    return module


def random_images(*shape, **options):
    return torch.randn(shape).contiguous(memory_format=torch.channels_last).requires_grad_(**options)


def test_only_what_is_asked_for_is_computed(calls):
    module = convolution()
    module(random_images(2, 4, 6, 6, requires_grad=False)).sum().backward()
    assert calls == [[False, True]]
    module.weight.requires_grad_(False)
    images = random_images(2, 4, 6, 6)
    module(images).sum().backward()
    assert calls[1:] == [[True, False]]
    torch.testing.assert_close(module.bias.grad, torch.full((4,), 2.0 * 2 * 36))  # of both calls


def test_gradients_of_gradients_are_torchs():
    module, plain = convolution(), nn.Conv2d(4, 4, 3, padding=1, groups=4)
    plain.load_state_dict(module.state_dict())
    images, seconds = random_images(2, 4, 6, 6), []
    for one in (module, plain):
        first = torch.autograd.grad(one(images).square().sum(), [images, one.weight], create_graph=True)
        seconds.append(torch.autograd.grad(sum(each.square().sum() for each in first), [images, one.weight]))
    for ours, theirs in zip(*seconds, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_all_else_takes_torchs_way(calls):
    module = convolution()
    images = torch.randn(2, 4, 6, 6)
    module(images).sum().backward()  # not channels-last
    assert module.double()(images.double()).dtype == torch.float64
    module.float()
    with torch.autocast("cpu", torch.bfloat16):
        assert module(images).dtype == torch.bfloat16
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # tracing is on its way out, but still met
        torch.jit.trace(module, images, check_trace=False)
    torch.export.export(module, (images,))
    assert module(torch.randn(4, 6, 6)).shape == (4, 6, 6)
    assert module(torch.randn(0, 4, 6, 6)).shape == (0, 4, 6, 6)
    assert not calls


@pytest.mark.parametrize(
    "other",
    [
        nn.Conv2d(4, 4, 3, padding=1),
        nn.Conv2d(4, 8, 3, padding=1, groups=4),
        nn.Conv2d(4, 4, 3, padding=2, dilation=2, groups=4),
        nn.Conv2d(4, 4, 3, padding=1, groups=4, padding_mode="reflect"),
        nn.Conv2d(4, 4, 3, padding="same", groups=4),
        nn.Conv2d(4, 4, 1, padding=1, groups=4),
        nn.ConvTranspose2d(4, 4, 3, groups=4),
    ],
)
def test_other_convolutions_are_left_alone(other):
    kind = type(other)
    assert use_depthwise(other) == 0 and type(other) is kind
