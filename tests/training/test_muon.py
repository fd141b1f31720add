"""Muon for training from scratch, and the rates that go with it."""

import copy

import pytest
import torch

from fasttrain.training.optimizers import create_optimizer, parameter_groups
from fasttrain.training.optimizers.muon import orthogonal
from fasttrain.training.settings import OptimizerSettings

from .optimizer_cases import assert_alike, loss_of, make_net, take_steps


def jordans_step(weight, gradient, moment, lr, momentum):
    """A step of airbench94_muon, in float32."""
    moment.mul_(momentum).add_(gradient)
    x = gradient.add(moment, alpha=momentum).reshape(len(weight), -1)
    x = x / (x.norm() + 1e-7)
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    for _ in range(3):
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    weight.mul_(len(weight) ** 0.5 / weight.norm()).sub_((x.T if tall else x).reshape(weight.shape), alpha=lr)


def test_muon_sgd_is_jordans_muon_on_filters_and_nesterov_sgd_on_the_rest():
    net = make_net()
    reference = copy.deepcopy(net)
    settings = OptimizerSettings(name="muon-sgd", lr=0.1, head_lr=2.0, bias_lr=3.0)
    optimizer = create_optimizer(net, settings)
    filters = [reference.conv.weight, reference.hidden.weight]
    moments = [torch.zeros_like(weight) for weight in filters]
    heads = list(reference.fc.parameters())
    vectors = [p for p in reference.parameters() if p.ndim == 1 and p is not reference.fc.bias]
    sgd = torch.optim.SGD([{"params": heads, "lr": 0.2}, {"params": vectors, "lr": 0.3}], momentum=0.85, nesterov=True)
    for group in optimizer.param_groups:
        group["lr"] = 0.1 * group["lr_scale"]
    for step in range(4):
        take_steps(net, optimizer, 1, first=step)
        reference.zero_grad()
        loss_of(reference, step).backward()
        with torch.no_grad():
            for weight, moment in zip(filters, moments, strict=True):
                jordans_step(weight, weight.grad, moment, 0.1, 0.6)
        sgd.step()
    assert_alike(net, reference, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(6, 40), (40, 6), (16, 16)])
def test_an_orthogonal_step_has_singular_values_near_one(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonal(matrix, 6))
    assert values.min() > 0.6 and values.max() < 1.3
    torch.testing.assert_close(orthogonal(matrix, 3), orthogonal(7 * matrix, 3))


def test_vectors_outside_of_the_classifier_have_a_rate_of_their_own():
    net = make_net()
    groups = parameter_groups(net, 0.1, head_lr=5.0, bias_lr=64.0)
    scales = {id(parameter): group["lr_scale"] for group in groups for parameter in group["params"]}
    of = {name: scales[id(parameter)] for name, parameter in net.named_parameters()}
    assert {name for name, scale in of.items() if scale == 64.0} == {
        "conv.bias",
        "norm.weight",
        "norm.bias",
        "hidden.bias",
    }
    assert of["fc.weight"] == of["fc.bias"] == 5.0 and of["conv.weight"] == 1.0
