"""Which parameters are decayed, and which learn at which share of the learning rate."""

import fnmatch
import re
from collections.abc import Collection
from typing import Any

from timm.models import group_parameters
from torch import nn

from fasttrain.base.errors import ConfigError
from fasttrain.models.create import classifier_names

# Tables of positions and single tokens: what they hold are points, not matrices that multiply something.
_POINTS = re.compile(r"(^|_)(pos_embed|position_embedding|rel_pos|relative_position_bias_table)|_token$")


def parameter_groups(
    model: nn.Module,
    weight_decay: float,
    layer_decay: float = 1.0,
    head_lr: float = 1.0,
    matrix_dims: Collection[int] = (),
    bias_lr: float = 1.0,
) -> list[dict[str, Any]]:
    """Groups of the trainable parameters, each with its `weight_decay` and `lr_scale`.

    Undecayed are vectors (norm scales, biases), position and relative-position tables, tokens, and what the model
    itself excludes (``model.no_weight_decay()``).

    Args:
        layer_decay: the layer below the classifier learns at this share of the rate, the one below that at its square,
            and so on (Clark et al., ELECTRA, ICLR 2020; BEiT's grouping as timm has it).
        head_lr: the classifier learns at this multiple of the rate.
        matrix_dims: decayed parameters outside of the classifier of these numbers of dimensions have groups of their
            own (``is_matrix``).
        bias_lr: other vectors than the classifier's learn at this multiple of the rate.

    Raises:
        ConfigError: layers are to be told apart, but the model does not tell them.
    """
    excluded = _own_exceptions(model)
    scales = _lr_scales(model, layer_decay, head_lr, bias_lr)
    heads = _head_prefixes(model)
    groups: dict[tuple[bool, float, bool], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        decayed = parameter.ndim > 1 and not _is_excluded(name, excluded)
        scale = scales.get(name, 1.0)
        is_matrix = decayed and parameter.ndim in matrix_dims and not name.startswith(heads)
        group = {"params": [], "weight_decay": weight_decay if decayed else 0.0, "lr_scale": scale}
        if matrix_dims:
            group["is_matrix"] = is_matrix
        groups.setdefault((decayed, scale, is_matrix), group)["params"].append(parameter)
    return [groups[key] for key in sorted(groups, reverse=True)]


def _own_exceptions(model: nn.Module) -> set[str]:
    exceptions = getattr(model, "no_weight_decay", None)
    return set(exceptions()) if callable(exceptions) else set()


def _is_excluded(name: str, patterns: Collection[str]) -> bool:
    own = any(fnmatch.fnmatch(name, pattern) for pattern in patterns)
    return own or _POINTS.search(name.rsplit(".", 1)[-1]) is not None


def _head_prefixes(model: nn.Module) -> tuple[str, ...]:
    return tuple(f"{name}." for name in classifier_names(model))


def _lr_scales(model: nn.Module, layer_decay: float, head_lr: float, bias_lr: float) -> dict[str, float]:
    """Shares of the learning rate by parameter name; what is missing learns at the full rate."""
    scales: dict[str, float] = {}
    if layer_decay != 1.0:
        matcher = getattr(model, "group_matcher", None)
        if matcher is None:
            raise ConfigError(f"{type(model).__name__} does not tell its layers apart; leave out optimizer.layer_decay")
        layers = group_parameters(model, matcher(coarse=False), reverse=True)
        top = max(layers.values())
        scales = {name: layer_decay ** (top - layer) for name, layer in layers.items()}
    if head_lr != 1.0:
        heads = _head_prefixes(model)
        if not heads:
            raise ConfigError(f"{type(model).__name__} does not name its classifier; leave out optimizer.head_lr")
        for name, _ in model.named_parameters():
            if name.startswith(heads):
                scales[name] = scales.get(name, 1.0) * head_lr
    if bias_lr != 1.0:
        heads = _head_prefixes(model)
        for name, parameter in model.named_parameters():
            if parameter.ndim <= 1 and not name.startswith(heads):
                scales[name] = scales.get(name, 1.0) * bias_lr
    return scales
