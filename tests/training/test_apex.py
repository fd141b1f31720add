"""Optimizers of NVIDIA apex: with a stand-in, without it, and against the plain ones where it is built."""

import dataclasses
import sys
import types

import pytest
import torch

from fasttrain.base.errors import ConfigError
from fasttrain.training.optimizers import check_optimizer, create_optimizer
from fasttrain.training.optimizers.registry import find
from fasttrain.training.settings import OptimizerSettings

from .optimizer_cases import assert_alike, make_net


@pytest.fixture
def stand_in(monkeypatch):
    """An `apex` that notes what its optimizers are made with."""
    calls = {}

    def make(name):
        class Fused(torch.optim.SGD):
            def __init__(self, params, lr, **arguments):
                calls[name] = {"lr": lr, **arguments}
                super().__init__(params, lr)

            def zero_grad(self):  # apex takes no argument
                super().zero_grad()

        return Fused

    optimizers = types.ModuleType("apex.optimizers")
    for name in ("FusedAdam", "FusedLAMB", "FusedSGD", "FusedNovoGrad", "FusedAdagrad"):
        setattr(optimizers, name, make(name))
    apex = types.ModuleType("apex")
    apex.__path__ = []
    apex.__spec__ = types.SimpleNamespace(name="apex")
    monkeypatch.setitem(sys.modules, "apex", apex)
    monkeypatch.setitem(sys.modules, "apex.optimizers", optimizers)
    monkeypatch.setitem(sys.modules, "amp_C", types.ModuleType("amp_C"))
    return calls


@pytest.mark.parametrize(
    ("name", "cls", "expected"),
    [
        ("apex:adam", "FusedAdam", {"adam_w_mode": False}),
        ("apex:adamw", "FusedAdam", {"adam_w_mode": True}),
        ("apex:lamb", "FusedLAMB", {"max_grad_norm": 0.5}),
        ("apex:sgd", "FusedSGD", {"momentum": 0.9, "nesterov": True, "set_grad_none": True}),
        ("apex:novograd", "FusedNovoGrad", {"betas": (0.95, 0.98)}),
        ("apex:adagrad", "FusedAdagrad", {}),
    ],
)
def test_arguments_are_mapped_to_apex(stand_in, monkeypatch, name, cls, expected):
    settings = OptimizerSettings(name=name, clip_norm=0.5)
    kind = find(name)
    anywhere = dataclasses.replace(kind, device=None)
    monkeypatch.setattr("fasttrain.training.optimizers.create.find", lambda _: anywhere)
    create_optimizer(make_net(), settings)
    assert stand_in[cls] == {"lr": kind.lr, **expected}


def test_apex_runs_on_cuda_alone(stand_in):
    with pytest.raises(ConfigError, match="runs on cuda alone, and this is cpu"):
        create_optimizer(make_net(), OptimizerSettings(name="apex:adamw"))


def test_a_missing_apex_names_the_build_and_the_namesake(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"not installed; .*git clone .*NVIDIA/apex.*not `pip install apex`"):
        check_optimizer(OptimizerSettings(name="apex:lamb"))
    monkeypatch.undo()
    namesake = types.ModuleType("apex")
    namesake.__spec__ = types.SimpleNamespace(name="apex")
    monkeypatch.setitem(sys.modules, "apex", namesake)
    with pytest.raises(ConfigError, match="is not NVIDIA's; remove it"):
        check_optimizer(OptimizerSettings(name="apex:lamb"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="apex needs a GPU")
@pytest.mark.parametrize("name", ["adam", "adamw", "lamb", "sgd", "novograd"])
def test_apex_gives_the_update_of_the_plain_optimizer(name):
    pytest.importorskip("amp_C", reason="NVIDIA apex is not built")
    ours, theirs = make_net().cuda(), make_net().cuda()
    for net, kind in ((ours, name), (theirs, f"apex:{name}")):
        settings = OptimizerSettings(name=kind, lr=0.01, weight_decay=0.1)
        optimizer = create_optimizer(net, settings)
        for step in range(5):
            torch.manual_seed(step)
            optimizer.zero_grad()
            net(torch.randn(8, 3, 5, 5, device="cuda")).square().sum().backward()
            optimizer.step()
    assert_alike(ours, theirs, rtol=1e-4, atol=1e-5)
