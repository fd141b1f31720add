"""From settings to an optimizer over a model's parameters."""

import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn, optim

from fasttrain.base.errors import ConfigError
from fasttrain.training.optimizers.groups import parameter_groups
from fasttrain.training.optimizers.registry import LOOKAHEAD, Kind, Target, find
from fasttrain.training.optimizers.wrappers import Lookahead
from fasttrain.training.settings import OptimizerSettings

_SET_ELSEWHERE = {"params", "lr", "weight_decay", "fused", "max_grad_norm"}


def create_optimizer(model: nn.Module, settings: OptimizerSettings) -> optim.Optimizer:
    """The optimizer of `settings` over the trainable parameters of `model`, fused where torch has it.

    Raises:
        ConfigError: there is no such optimizer, it needs something that is not here, or it takes other arguments.
    """
    kind = _kind(settings)
    target, arguments = _target(settings, kind), _arguments(settings, kind)
    decay = kind.weight_decay if settings.weight_decay is None else settings.weight_decay
    shares = settings.layer_decay, settings.head_lr
    groups = parameter_groups(model, decay, *shares, kind.matrix_dims, settings.bias_lr)
    if not groups:
        raise ConfigError("the model has no parameter that learns")
    parameters = [parameter for group in groups for parameter in group["params"]]
    device = parameters[0].device.type
    if kind.device not in (None, device):
        raise ConfigError(f"optimizer {settings.name} runs on {kind.device} alone, and this is {device}")
    if device in kind.fused and all(parameter.is_floating_point() for parameter in parameters):
        arguments["fused"] = True
    if kind.clips and settings.clip_norm > 0:
        arguments["max_grad_norm"] = settings.clip_norm
    try:
        optimizer = target(groups, lr=peak_lr(settings), **arguments)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"optimizer {settings.name} refuses its arguments: {error}") from None
    return Lookahead(optimizer) if settings.name.startswith(LOOKAHEAD) else optimizer


def check_optimizer(settings: OptimizerSettings) -> None:
    """Find out what can be found out without a model.

    Raises:
        ConfigError: there is no such optimizer, it needs something that is not here, or it takes other arguments.
    """
    kind = _kind(settings)
    _target(settings, kind)
    peak_lr(settings)


def peak_lr(settings: OptimizerSettings) -> float:
    """The learning rate after warm-up.

    Raises:
        ConfigError: none is given for an optimizer that has no default.
    """
    default = _kind(settings).lr
    if settings.lr is None and default is None:
        raise ConfigError(f"optimizer {settings.name} has no learning rate of its own; give --lr")
    return settings.lr if settings.lr is not None else default or 0.0


def clips_itself(settings: OptimizerSettings) -> bool:
    """Whether the optimizer clips the gradients, so that nothing else should."""
    return _kind(settings).clips


def _kind(settings: OptimizerSettings) -> Kind:
    return find(settings.name.removeprefix(LOOKAHEAD))


def _arguments(settings: OptimizerSettings, kind: Kind) -> dict[str, Any]:
    named = {"betas": settings.betas, "momentum": settings.momentum, "eps": settings.eps}
    return {key: value for key, value in named.items() if value is not None} | dict(settings.options)


def _target(settings: OptimizerSettings, kind: Kind) -> Target:
    """What makes the optimizer.

    Raises:
        ConfigError: it does not take what the settings give.
    """
    target = kind.target()
    known = _parameters(target)
    for key in _arguments(settings, kind):
        if key not in known or key in _SET_ELSEWHERE:
            takes = ", ".join(name for name in known if name not in _SET_ELSEWHERE)
            raise ConfigError(f"optimizer {settings.name} takes no {key!r}; besides lr and weight_decay: {takes}")
    return target


def _parameters(target: Target) -> Mapping[str, inspect.Parameter]:
    return {
        name: parameter
        for name, parameter in inspect.signature(target).parameters.items()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }
