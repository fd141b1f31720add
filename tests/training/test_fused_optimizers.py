"""AdamW and LAMB of our own kernels beside those of torch and of our multi-tensor code, and inside of the Stepper."""

import copy

import pytest
import torch
from timm.utils import ModelEmaV3

from fasttrain.base.errors import ConfigError
from fasttrain.loading.batch import Batch
from fasttrain.training.epochs import EpochTable
from fasttrain.training.monitor import LaggedLoss
from fasttrain.training.optimizers import check_optimizer, clips_itself, create_optimizer, parameter_groups
from fasttrain.training.optimizers.fused import FusedAdamW, FusedLamb
from fasttrain.training.schedule import Schedule
from fasttrain.training.schedule_settings import ScheduleSettings
from fasttrain.training.settings import OptimizerSettings
from fasttrain.training.stepper import Stepper

from ..kernels.interpreted import DEVICE, INTERPRETED, on_device, outside, run_in_interpreter
from .stepper_cases import make_stepper as stepper_of

pytest.importorskip("triton", reason="Triton comes with torch for CUDA on Linux only")


@outside
def test_all_of_this_in_the_interpreter() -> None:
    run_in_interpreter(__file__)


class Net(torch.nn.Module):
    """Statistics, a frozen layer, and a layer that every third step leaves out."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = torch.nn.Conv2d(3, 5, 3).requires_grad_(False)
        self.norm = torch.nn.BatchNorm2d(5)
        self.conv = torch.nn.Conv2d(5, 12, 3, bias=False)
        self.extra = torch.nn.Linear(12, 12, bias=False)
        self.hidden = torch.nn.Linear(12, 90, bias=False)
        self.fc = torch.nn.Linear(90, 3)
        self.pretrained_cfg = {"classifier": "fc"}
        self.calls = 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.conv(self.norm(self.stem(images)).relu()).mean((2, 3))
        self.calls += 1
        if self.calls % 3:
            features = features + self.extra(features)
        return self.fc(self.hidden(features).relu())


def make_net() -> Net:
    torch.manual_seed(0)
    return Net().to(DEVICE, memory_format=torch.channels_last)


def settings_of(name: str, **changes: object) -> OptimizerSettings:
    """Epsilon is large, or else the rounding of a gradient that is almost zero decides where its weight goes."""
    values = {"name": name, "lr": 0.01, "weight_decay": 0.1, "head_lr": 3.0, "clip_norm": 0.2, "eps": 1e-3}
    return OptimizerSettings(**{**values, **changes})


def make_stepper(name: str, ema: bool = True, buffers: str = "average", **changes: object) -> Stepper:
    net = make_net()
    settings = settings_of(name, **changes)
    return stepper_of(
        net,
        create_optimizer(net, settings),
        schedule=Schedule(ScheduleSettings(kind="cosine", warmup_epochs=0.2), 0.01, EpochTable.even(10, 1)),
        ema=ModelEmaV3(net, decay=0.7, use_warmup=True, exclude_buffers=buffers == "copy") if ema else None,
        device=torch.device(DEVICE),
        clip_norm=0.0 if clips_itself(settings) else settings.clip_norm,
    )


def train(stepper: Stepper, steps: int, first: int = 0) -> None:
    stepper.train()
    for step in range(first, first + steps):
        generator = torch.Generator().manual_seed(step)
        images = 3 * torch.randn(6, 3, 8, 8, generator=generator)
        labels = torch.randint(0, 3, (6,), generator=generator)
        batch = (images, labels, labels, torch.ones(6, dtype=torch.bool))
        stepper.step(Batch(*(entry.to(DEVICE) for entry in batch)), step, LaggedLoss(stepper.device))


def trainable(net: Net) -> list[torch.Tensor]:
    return [parameter for parameter in net.parameters() if parameter.requires_grad]


def loss_of(net: Net, step: int = 0) -> torch.Tensor:
    images = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(step))
    return net(images.to(DEVICE)).square().sum()


def assert_alike(ours: torch.nn.Module, theirs: torch.nn.Module, rtol: float = 1e-6, atol: float = 1e-6) -> None:
    others = theirs.state_dict()
    for name, mine in ours.state_dict().items():
        torch.testing.assert_close(mine, others[name], rtol=rtol, atol=atol, msg=lambda text, n=name: f"{n}: {text}")


@on_device
@pytest.mark.parametrize(("name", "buffers"), [("adamw", "average"), ("lamb", "copy")])
def test_training_is_that_with_clipping_and_averaging_of_their_own(name: str, buffers: str) -> None:
    ours, theirs = make_stepper(f"triton:{name}", buffers=buffers), make_stepper(name, buffers=buffers)
    start = make_net()
    assert ours.clip_norm == 0 and len(ours.optimizer.param_groups) == 4
    for step in range(4):
        train(ours, 1, step)
        train(theirs, 1, step)
        gradients = [entry.grad for entry in ours.module.parameters() if entry.grad is not None]
        assert torch.nn.utils.get_total_norm(gradients) > 0.2, "clipping is to be seen"
        assert_alike(ours.module, theirs.module)
        assert_alike(ours.ema.module, theirs.ema.module)
    assert torch.equal(ours.ema.module.stem.weight, start.stem.weight)
    assert not torch.allclose(ours.ema.module.fc.weight, ours.module.fc.weight, rtol=1e-3)


@on_device
def test_a_run_goes_on_from_its_state_to_the_same_bits() -> None:
    whole, first, second = (make_stepper("triton:adamw") for _ in range(3))
    train(whole, 4)
    train(first, 2)
    second.module.load_state_dict(first.module.state_dict())
    second.module.calls = first.module.calls
    second.optimizer.load_state_dict(copy.deepcopy(first.optimizer.state_dict()))
    second.ema.load_state_dict(first.ema.state_dict())
    train(second, 2, first=2)
    for ours, theirs in ((whole.module, second.module), (whole.ema.module, second.ema.module)):
        assert_alike(ours, theirs, rtol=0, atol=0)


@on_device
def test_state_is_exchanged_with_torchs_adamw(tmp_path) -> None:
    reference = make_stepper("adamw")
    train(reference, 4)
    for names in (("triton:adamw", "adamw"), ("adamw", "triton:adamw")):
        begun, goes_on = (make_stepper(name) for name in names)
        train(begun, 2)
        torch.save(begun.optimizer.state_dict(), tmp_path / "state")
        saved = torch.load(tmp_path / "state", weights_only=True)
        goes_on.module.load_state_dict(begun.module.state_dict())
        goes_on.module.calls = begun.module.calls
        goes_on.ema.load_state_dict(begun.ema.state_dict())
        goes_on.optimizer.load_state_dict(saved)
        train(goes_on, 2, first=2)
        assert_alike(goes_on.module, reference.module)
        assert_alike(goes_on.ema.module, reference.ema.module)


@on_device
def test_parameters_without_a_gradient_wait_and_count_their_own_steps() -> None:
    stepper = make_stepper("triton:adamw")
    before = stepper.module.extra.weight.detach().clone()
    stepper.module.calls = 2
    train(stepper, 1)
    assert torch.equal(stepper.module.extra.weight, before)
    train(stepper, 1, first=1)
    state = stepper.optimizer.state
    assert state[stepper.module.extra.weight]["step"] == 1
    assert state[stepper.module.fc.weight]["step"] == 2


@on_device
def test_a_grad_scaler_is_obeyed_on_the_device() -> None:
    """Gradients are unscaled, and steps with infinities left out, while averages move on."""
    nets = [make_net() for _ in range(2)]
    averages = [copy.deepcopy(net) for net in nets]
    ours = FusedAdamW(parameter_groups(nets[0], 0.1), 0.01, eps=1e-3, max_grad_norm=0.5)
    ours.average_into(dict(zip(nets[0].parameters(), averages[0].parameters(), strict=True)))
    theirs = torch.optim.AdamW(parameter_groups(nets[1], 0.1), 0.01, eps=1e-3)
    for net, average, optimizer in zip(nets, averages, (ours, theirs), strict=True):
        scaler = torch.amp.GradScaler(DEVICE, init_scale=1024.0, growth_interval=2)
        optimizer.average_decay = 0.75
        for step in range(4):
            optimizer.zero_grad()
            scaler.scale(loss_of(net, step)).backward()
            if step == 2:
                net.fc.weight.grad[0, 0] = float("inf")
            if optimizer is theirs:
                scaler.unscale_(optimizer)
                torch.nn.utils.clip_grad_norm_(net.parameters(), 0.5)
            scaler.step(optimizer)
            scaler.update()
            if optimizer is theirs:
                with torch.no_grad():
                    for one, value in zip(average.parameters(), net.parameters(), strict=True):
                        one.lerp_(value, 0.25)
        assert scaler.get_scale() == 1024.0
    assert ours.state[nets[0].fc.weight]["step"] == 3
    assert_alike(nets[0], nets[1])
    assert_alike(averages[0], averages[1])


@on_device
def test_gradients_that_were_unscaled_before_are_not_unscaled_again() -> None:
    nets = [make_net() for _ in range(2)]
    for net, scale in zip(nets, (1.0, 4096.0), strict=True):
        optimizer = FusedLamb(trainable(net), 0.01)
        scaler = torch.amp.GradScaler(DEVICE, init_scale=scale)
        scaler.scale(loss_of(net)).backward()
        scaler.unscale_(optimizer)
        scaler.step(optimizer)
    assert_alike(*nets)


@on_device
def test_launching_alone_goes_by_what_was_refreshed() -> None:
    """What a captured step does when it is replayed: rates are those of the last refresh."""
    nets = [make_net() for _ in range(2)]
    for net, names in zip(nets, (["step"], ["refresh", "launch"]), strict=True):
        optimizer = FusedAdamW(trainable(net), 0.01)
        loss_of(net).backward()
        for rate in (0.01, 0.1):
            for group in optimizer.param_groups:
                group["lr"] = rate
            for name in names:
                getattr(optimizer, name)()
    assert_alike(*nets, rtol=0, atol=0)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    before = copy.deepcopy(net)
    optimizer.launch()
    assert not torch.equal(net.fc.weight, before.fc.weight)
    before = copy.deepcopy(net)
    optimizer.refresh()
    optimizer.launch()
    assert_alike(net, before, rtol=0, atol=0)


@on_device
def test_weights_that_move_elsewhere_are_followed() -> None:
    nets = [make_net() for _ in range(2)]
    optimizers = [FusedAdamW(trainable(net), 0.01, eps=1e-3) for net in nets]
    for step in range(2):
        for net, optimizer in zip(nets, optimizers, strict=True):
            if step == 1 and net is nets[1]:
                net.to(memory_format=torch.contiguous_format)
                net.fc.weight.data = net.fc.weight.data.clone()
            optimizer.zero_grad()
            loss_of(net, step).backward()
            optimizer.step()
    assert_alike(*nets)


@on_device
def test_a_closure_groups_added_later_and_lookahead() -> None:
    weights = [torch.nn.Parameter(torch.ones(3, device=DEVICE)) for _ in range(2)]
    optimizer = FusedAdamW([weights[0]], 0.1)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = sum(weight.square().sum() for weight in weights)
        loss.backward()
        return loss

    assert optimizer.step(closure) == 6
    optimizer.add_param_group({"params": [weights[1]], "lr": 0.2})
    optimizer.step(closure)
    assert weights[0].mean() < 0.9 and weights[1].mean() < 0.9
    stepper = make_stepper("lookahead:triton:adamw")
    reference = make_stepper("lookahead:adamw")
    train(stepper, 2)
    train(reference, 2)
    assert_alike(stepper.ema.module, reference.ema.module)


@on_device
def test_arguments_reach_it_and_wrong_ones_are_refused() -> None:
    settings = settings_of("triton:lamb", betas=(0.8, 0.9), options={"always_adapt": True})
    optimizer = create_optimizer(make_net(), settings)
    group = optimizer.param_groups[0]
    assert (group["betas"], group["always_adapt"], optimizer.max_grad_norm) == ((0.8, 0.9), True, 0.2)
    assert create_optimizer(make_net(), settings_of("triton:adamw", clip_norm=0.0)).max_grad_norm is None
    with pytest.raises(ConfigError, match=r"float32 weights, not .*bfloat16; take adamw"):
        create_optimizer(make_net().bfloat16(), settings_of("triton:adamw"))
    with pytest.raises(ConfigError, match="refuses its arguments: betas"):
        create_optimizer(make_net(), settings_of("triton:adamw", betas=(1.5, 0.9)))
    with pytest.raises(ValueError, match="needs an average"):
        optimizer.average_into({})
    with pytest.raises(RuntimeError, match=r"refresh\(\) comes before"):
        optimizer.launch()
    amsgrad = FusedAdamW(make_net().parameters())
    amsgrad.param_groups[0]["amsgrad"] = True
    with pytest.raises(ConfigError, match="neither amsgrad nor maximize; take adamw"):
        amsgrad.step()


@pytest.mark.skipif(INTERPRETED, reason="the interpreter runs it on a CPU")
@pytest.mark.parametrize("name", ["adamw", "lamb"])
def test_on_a_cpu_it_names_what_does_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=f"triton:{name} runs on CUDA GPUs alone; take {name}, which does the same"):
        create_optimizer(torch.nn.Linear(2, 2), OptimizerSettings(name=f"triton:{name}"))

    def absent(module: str) -> None:
        raise ImportError(module)

    monkeypatch.setattr("fasttrain.training.optimizers.fused.importlib.import_module", absent)
    with pytest.raises(ConfigError, match=f"triton:{name} needs Triton.*take {name}"):
        check_optimizer(OptimizerSettings(name=f"triton:{name}"))


@pytest.mark.skipif(DEVICE == "cpu", reason="no GPU here")
@pytest.mark.parametrize("name", ["triton:adamw", "triton:lamb"])
def test_a_step_never_waits_for_the_device(name: str) -> None:
    stepper = make_stepper(name)
    train(stepper, 2)
    optimizer = stepper.optimizer
    torch.cuda.set_sync_debug_mode("error")
    try:
        for group in optimizer.param_groups:
            group["lr"] *= 0.5
        optimizer.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.skipif(DEVICE == "cpu", reason="no GPU here")
@pytest.mark.parametrize("kind", [FusedAdamW, FusedLamb])
def test_a_captured_launch_sees_the_rates_of_the_last_refresh(kind) -> None:
    nets = [make_net() for _ in range(2)]
    optimizers = [kind(trainable(net), 0.01, max_grad_norm=0.5) for net in nets]
    for net in nets:
        loss_of(net).backward()
    for optimizer in optimizers:
        optimizer.step()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        optimizers[1].launch()
    for rate in (0.02, 0.003):
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
        optimizers[0].step()
        optimizers[1].refresh()
        graph.replay()
    assert_alike(*nets, rtol=0, atol=0)
