"""Parts of a model that do not learn."""

import fnmatch
from collections.abc import Sequence

from torch import nn

from fasttrain.base.errors import ConfigError


def freeze(model: nn.Module, patterns: Sequence[str]) -> int:
    """Take the parameters whose names match a shell pattern (``blocks.0.*``) out of training; their number.

    Raises:
        ConfigError: a pattern matches none, or nothing is left to learn.
    """
    names = dict(model.named_parameters())
    frozen = set()
    for pattern in patterns:
        matching = fnmatch.filter(names, pattern)
        if not matching:
            roots = ", ".join(dict.fromkeys(name.split(".")[0] for name in names))
            raise ConfigError(f"freeze: no parameter matches {pattern!r}; the model's names begin with {roots}")
        frozen.update(matching)
    if len(frozen) == len(names):
        raise ConfigError("freeze: the patterns match all parameters, so nothing would learn")
    for name in frozen:
        names[name].requires_grad_(False)
    return len(frozen)


def frozen_norms(model: nn.Module) -> list[nn.Module]:
    """Normalisation layers with running statistics whose parameters are all frozen; they keep their statistics, too."""
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    return [module for module in norms if _is_frozen(module)]


def _is_frozen(module: nn.Module) -> bool:
    parameters = list(module.parameters(recurse=False))
    return bool(parameters) and not any(parameter.requires_grad for parameter in parameters)
