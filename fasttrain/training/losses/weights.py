"""Weights of classes in the loss."""

import difflib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fasttrain.base.errors import ConfigError
from fasttrain.training.losses.base import Facts

RULES = ("inverse", "effective")


def class_weights(
    chosen: str | Sequence[float] | None, beta: float, facts: Facts, names: Sequence[str] | None
) -> Tensor | None:
    """(C,) float32, None for none.

    Args:
        chosen: ``inverse``: ``N / (C n_c)``, by which all classes weigh the same in an epoch; ``effective``: inverse
            to the effective number of samples, ``(1 - beta) / (1 - beta^n_c)``, brought to a mean of 1 (Cui et al.,
            CVPR 2019, arXiv 1901.05555); a number for each class; or a file of them: one a line, a JSON list, or a JSON
            object by class name.
        names: of the classes.

    Raises:
        ConfigError: there is no such rule or file, or it does not hold a number, not below 0, for each class.
    """
    if chosen is None:
        return None
    if chosen == "inverse":
        counts = facts.counts_for("class_weights inverse")
        return (counts.sum() / (len(counts) * counts)).float()
    if chosen == "effective":
        counts = facts.counts_for("class_weights effective")
        weights = (1 - beta) / (1 - beta**counts)
        return (weights / weights.mean()).float()
    values = _from_file(chosen, names) if isinstance(chosen, str) else list(chosen)
    if len(values) != facts.num_classes:
        raise ConfigError(f"class_weights holds {len(values)} numbers, and there are {facts.num_classes} classes")
    if not all(math.isfinite(value) and value >= 0 for value in values) or not any(values):
        raise ConfigError("class_weights must be finite numbers, none below 0 and not all 0")
    return torch.tensor(values, dtype=torch.float32, device=facts.device)


def _from_file(path: str, names: Sequence[str] | None) -> list[float]:
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        nearest = difflib.get_close_matches(path, RULES, n=1, cutoff=0.5)
        hint = f"did you mean {nearest[0]!r}?" if nearest else f"name a file, or one of {', '.join(RULES)}"
        raise ConfigError(f"class_weights {path!r} is neither a rule nor a file that can be read; {hint}") from None
    try:
        content: Any = json.loads(text) if path.endswith(".json") else text.split()
        if isinstance(content, dict):
            content = _by_name(content, path, names)
        return [float(value) for value in content]
    except (ValueError, TypeError) as error:
        raise ConfigError(f"class_weights {path} must hold one number for each class: {error}") from None


def _by_name(weights: dict[str, Any], path: str, names: Sequence[str] | None) -> list[Any]:
    if names is None:
        raise ConfigError(f"class_weights {path} goes by class names, and the training data has none; use a list")
    missing = [name for name in names if name not in weights]
    unknown = [name for name in weights if name not in names]
    if missing or unknown:
        what = f"lacks class {missing[0]!r}" if missing else f"names {unknown[0]!r}, which is no class of the data"
        raise ConfigError(f"class_weights {path} {what}")
    return [weights[name] for name in names]
