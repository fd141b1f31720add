import copy

import pytest
import timm.optim
import torch
from timm.optim.lookahead import Lookahead as TimmLookahead
from timm.optim.radam import RAdamLegacy

from fasttrain.base.config import load_settings
from fasttrain.base.errors import ConfigError
from fasttrain.models.create import create_model
from fasttrain.training.optimizers import check_optimizer, create_optimizer, list_optimizers, parameter_groups, peak_lr
from fasttrain.training.optimizers.lamb import Lamb
from fasttrain.training.optimizers.novograd import NovoGrad
from fasttrain.training.optimizers.rectified import AdaBelief, RAdam, centralised
from fasttrain.training.optimizers.registry import find
from fasttrain.training.optimizers.wrappers import Lookahead
from fasttrain.training.settings import OptimizerSettings

from .optimizer_cases import assert_alike, make_net, take_steps

OWN = [name for name in list_optimizers() if ":" not in name]


REFERENCES = {
    "lamb": (lambda p: Lamb(p, 0.01, weight_decay=0.02), lambda p: timm.optim.Lamb(p, 0.01, weight_decay=0.02)),
    "lamb-adapting": (
        lambda p: Lamb(p, 0.01, weight_decay=0.0, always_adapt=True, max_grad_norm=None),
        lambda p: timm.optim.Lamb(p, 0.01, weight_decay=0.0, always_adapt=True, max_grad_norm=None),
    ),
    "novograd": (
        lambda p: NovoGrad(p, 0.01, weight_decay=0.03),
        lambda p: timm.optim.NvNovoGrad(p, 0.01, weight_decay=0.03),
    ),
    "novograd-averaging": (
        lambda p: NovoGrad(p, 0.01, grad_averaging=True),
        lambda p: timm.optim.NvNovoGrad(p, 0.01, grad_averaging=True),
    ),
    "adabelief": (
        lambda p: AdaBelief(p, 0.01, weight_decay=0.1),
        lambda p: timm.optim.AdaBelief(p, 0.01, weight_decay=0.1),
    ),
    "radam": (lambda p: RAdam(p, 0.01, weight_decay=0.1), lambda p: RAdamLegacy(p, 0.01, weight_decay=0.1)),
}


@pytest.mark.parametrize("name", REFERENCES)
def test_the_update_is_timms(name):
    ours, theirs = make_net(), make_net()
    make_ours, make_theirs = REFERENCES[name]
    take_steps(ours, make_ours(ours.parameters()), 20)
    take_steps(theirs, make_theirs(theirs.parameters()), 20)
    assert_alike(ours, theirs)


@pytest.mark.parametrize(
    "name", [name for name in REFERENCES if "lamb" not in name]
)  # timm counts a group's steps there
def test_parameters_without_a_gradient_wait_and_then_count_their_own_steps(name):
    ours, theirs = make_net(), make_net()
    optimizers = [make(net.parameters()) for make, net in zip(REFERENCES[name], (ours, theirs), strict=True)]
    for net, optimizer in zip((ours, theirs), optimizers, strict=True):
        net.hidden.requires_grad_(False)
        take_steps(net, optimizer, 3)
        net.hidden.requires_grad_(True)
        take_steps(net, optimizer, 5, first=3)
    assert_alike(ours, theirs)


def test_a_step_leaves_the_gradients_as_they_are():
    for make, _ in REFERENCES.values():
        net = make_net()
        optimizer = make(net.parameters())
        net(torch.randn(4, 3, 5, 5)).sum().backward()
        before = [parameter.grad.clone() for parameter in net.parameters()]
        optimizer.step()
        assert all(torch.equal(old, parameter.grad) for old, parameter in zip(before, net.parameters(), strict=True))


def test_ranger_is_radam_on_centralised_gradients_inside_lookahead():
    ours, theirs = make_net(), make_net()
    optimizer = create_optimizer(ours, OptimizerSettings(name="ranger", lr=0.01, weight_decay=0.1))
    inner = RAdamLegacy(parameter_groups(theirs, 0.1), 0.01, (0.95, 0.999), 1e-5)
    reference = TimmLookahead(inner, alpha=0.5, k=6)
    for parameter in theirs.parameters():  # timm begins with the weights of the sixth step, the paper with the first
        inner.state[parameter]["lookahead_slow_buff"] = parameter.detach().clone()
        inner.state[parameter] |= {
            "step": 0, "exp_avg": torch.zeros_like(parameter), "exp_avg_sq": torch.zeros_like(parameter)
        }  # fmt: skip
        parameter.register_hook(lambda gradient: centralised([gradient])[0])
    take_steps(ours, optimizer, 20)
    take_steps(theirs, reference, 20)
    assert_alike(ours, theirs)


def test_centralising_takes_the_mean_of_each_outputs_weights():
    matrix, vector = torch.randn(3, 4, 2), torch.randn(5)
    centred, same = centralised([matrix, vector])
    torch.testing.assert_close(centred.sum((1, 2)), torch.zeros(3), atol=1e-5, rtol=0)
    assert torch.equal(same, vector)


def test_lookahead_meets_half_way():
    weight = torch.nn.Parameter(torch.tensor([0.0]))
    optimizer = Lookahead(torch.optim.SGD([weight], lr=1.0), k=2, alpha=0.5)
    for expected in (-1.0, -1.0, -2.0, -2.0):  # two steps of -1 each, then half of the way
        weight.grad = torch.ones(1)
        optimizer.step()
        assert weight.item() == expected


@pytest.mark.parametrize("name", [*OWN, "lookahead:adam", "timm:lamb", "lion"])
def test_every_optimizer_learns_goes_on_from_its_state_to_the_same_bits_and_obeys_rate_and_decay(name):
    def fresh(**changes):
        net = make_net()
        return net, create_optimizer(
            net, OptimizerSettings(**{"name": name, "lr": 0.01, "weight_decay": 0.1} | changes)
        )

    whole, optimizer = fresh()
    start = copy.deepcopy(whole)
    take_steps(whole, optimizer, 9)
    assert all(not torch.equal(old, new) for old, new in zip(start.parameters(), whole.parameters(), strict=True))
    halves, first = fresh()
    take_steps(halves, first, 4)
    state = copy.deepcopy(first.state_dict())
    resumed, second = fresh()
    resumed.load_state_dict(halves.state_dict())
    second.load_state_dict(state)
    take_steps(resumed, second, 5, first=4)
    assert all(torch.equal(old, new) for old, new in zip(whole.parameters(), resumed.parameters(), strict=True))
    for changes in ({"lr": 0.02}, {"weight_decay": 0.0}):
        other, another = fresh(**changes)
        take_steps(other, another, 9)
        assert not torch.equal(whole.fc.weight, other.fc.weight), changes
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    before = copy.deepcopy(whole)
    for group in optimizer.param_groups:
        group["weight_decay"] = 0.0
    if "lookahead" not in name and name not in ("ranger", "muon-sgd"):  # which move weights by other things as well
        take_steps(whole, optimizer, 1, first=9)
        assert_alike(before, whole, rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("adamw", lambda p: torch.optim.AdamW(p, 0.01, foreach=False)),
        ("adam", lambda p: torch.optim.Adam(p, 0.01, foreach=False)),
        ("sgd", lambda p: torch.optim.SGD(p, 0.01, momentum=0.9, nesterov=True, foreach=False)),
        ("adagrad", lambda p: torch.optim.Adagrad(p, 0.01, foreach=False)),
    ],
)
def test_the_fused_update_is_the_plain_one(name, reference):
    ours, plain = make_net(), make_net()
    optimizer = create_optimizer(ours, OptimizerSettings(name=name, lr=0.01, weight_decay=0.1))
    assert all(group["fused"] for group in optimizer.param_groups)
    take_steps(ours, optimizer, 5)
    take_steps(plain, reference(parameter_groups(plain, 0.1)), 5)
    assert_alike(ours, plain)


def test_muon_takes_the_matrices_inside_and_leaves_the_rest_to_adamw():
    net = make_net()
    optimizer = create_optimizer(net, OptimizerSettings(name="muon"))
    muon, adamw = optimizer.inner
    assert [id(entry) for entry in muon.param_groups[0]["params"]] == [id(net.hidden.weight)]
    others = sum(len(group["params"]) for group in adamw.param_groups)
    assert others == len(list(net.parameters())) - 1
    with pytest.raises(ConfigError, match="timm:muon"):
        create_optimizer(torch.nn.Conv2d(1, 1, 3), OptimizerSettings(name="muon"))


def test_vectors_tokens_and_position_tables_are_not_decayed():
    for model in (create_model("test_vit", 3), create_model("swin_tiny_patch4_window7_224", 3)):
        plain = {
            id(p) for group in parameter_groups(model, 0.05) if group["weight_decay"] == 0 for p in group["params"]
        }
        for name, parameter in model.named_parameters():
            table = name.endswith(("pos_embed", "cls_token", "relative_position_bias_table"))
            assert (id(parameter) in plain) == (parameter.ndim <= 1 or table), name


def test_layers_learn_the_less_the_lower_and_the_head_by_its_own_multiple():
    model = create_model("test_vit", 3)
    groups = parameter_groups(model, 0.05, layer_decay=0.5, head_lr=10)
    scale = {id(parameter): group["lr_scale"] for group in groups for parameter in group["params"]}
    named = {name: scale[id(parameter)] for name, parameter in model.named_parameters()}
    depth = len(model.blocks)
    # the norm behind the last block learns with the head, as timm has it
    assert named["head.weight"] == pytest.approx(10 * 1.0)
    assert named[f"blocks.{depth - 1}.attn.qkv.weight"] == pytest.approx(0.5)
    assert named["blocks.0.attn.qkv.weight"] == pytest.approx(0.5**depth)
    assert named["patch_embed.proj.weight"] == pytest.approx(0.5 ** (depth + 1))
    assert len(scale) == len(list(model.parameters()))
    theirs = timm.optim.param_groups_layer_decay(model, 0.05, model.no_weight_decay(), layer_decay=0.5)
    expected = {id(parameter): group["lr_scale"] for group in theirs for parameter in group["params"]}
    ours = parameter_groups(model, 0.05, layer_decay=0.5)
    assert {id(parameter): group["lr_scale"] for group in ours for parameter in group["params"]} == expected
    with pytest.raises(ConfigError, match="layer_decay"):
        parameter_groups(torch.nn.Linear(2, 2), 0.05, layer_decay=0.5)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"name": "adamv"}, "did you mean 'adam"),
        ({"name": "no-such-thing-at-all"}, "--list-optimizers"),
        ({"name": "adamw", "momentum": 0.9}, "takes no 'momentum'"),
        ({"name": "sgd", "betas": (0.9, 0.99)}, "takes no 'betas'"),
        ({"name": "lamb", "options": {"trust": True}}, "takes no 'trust'.*always_adapt"),
        ({"name": "lion"}, "give --lr"),
        ({"name": "fusedlamb", "lr": 1.0}, "no optimizer 'fusedlamb'"),
    ],
)
def test_wrong_settings_are_one_sentence_before_there_is_a_model(values, words):
    with pytest.raises(ConfigError, match=words) as caught:
        check_optimizer(load_settings(OptimizerSettings, values))
    assert "\n" not in str(caught.value)


def test_arguments_reach_the_optimizer():
    net = make_net()
    settings = {"name": "lamb", "betas": (0.8, 0.9), "eps": 1e-3, "options": {"always_adapt": True}, "clip_norm": 0.5}
    optimizer = create_optimizer(net, load_settings(OptimizerSettings, settings))
    group = optimizer.param_groups[0]
    assert (group["betas"], group["eps"], group["always_adapt"]) == ((0.8, 0.9), 1e-3, True)
    assert (group["lr"], optimizer.max_grad_norm) == (find("lamb").lr, 0.5)
    with pytest.raises(ConfigError, match=r"refuses its arguments: betas must lie in \[0, 1\)"):
        create_optimizer(net, OptimizerSettings(name="novograd", betas=(0.9, 1.5)))


def test_defaults_are_stated_for_all_of_ours():
    assert all(peak_lr(OptimizerSettings(name=name)) > 0 for name in OWN)
    assert list_optimizers()["timm:lion"]
