"""Settings of methods that learn without labels: `TrainSettings` with what the authors took instead of our defaults."""

from collections.abc import Iterable
from typing import Any

from fasttrain.base.config import Settings
from fasttrain.loading.augment.mixing import Mixing
from fasttrain.training.schedule_settings import epochs_of
from fasttrain.training.settings import TrainSettings

# Settings of training that labels, or whole images alone, give a meaning.
OF_LABELS = (
    *("val", "val_ids", "extra_val", "best", "init", "label_smoothing", "loss", "head", "batch_former", "distill"),
    *("sam_rho", "swa_start", "drop_rate", "co_teacher"),
)


def with_published(values: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """`values` with `defaults` for what is not given, group by group. Where another optimizer or schedule is given than
    the defaults', their values for it mean nothing and are left out.

    Args:
        defaults: with the groups ``optimizer`` and ``schedule``.
    """
    if _named(values.get("optimizer"), "name") not in (None, defaults["optimizer"]["name"]):
        defaults = {**defaults, "optimizer": {}}
    length = epochs_of(_named(values.get("schedule"), "kind") or "")
    if length is not None:
        defaults = {**defaults, "epochs": length}
    if _named(values.get("schedule"), "kind") not in (None, defaults["schedule"]["kind"]):
        defaults = {**defaults, "schedule": {}}
    return _under(values, defaults)


def refuse_unlabelled(settings: TrainSettings, names: Iterable[str], what: str) -> None:
    """Refuse settings that would have no effect, for validators.

    Args:
        names: of settings.
        what: they mean nothing to. Mixing of images means nothing to it, either.

    Raises:
        ValueError: one differs from its default.
    """
    fields = type(settings).model_fields
    defaults = {name: fields[name].get_default(call_default_factory=True) for name in names}
    mixing = [f"augment.{name}" for name in Mixing.model_fields if _differs(settings.augment, name)]
    idle = [name for name, default in defaults.items() if getattr(settings, name) != default] + mixing
    if idle:
        raise ValueError(f"{idle[0]} means nothing to {what}; leave it out")


def _named(group: Any, key: str) -> str | None:
    value = group.get(key) if isinstance(group, dict) else getattr(group, key, None)
    return None if value is None else str(value)


def _differs(settings: Settings, name: str) -> bool:
    return bool(getattr(settings, name) != type(settings).model_fields[name].default)


def _under(values: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """`values`, and from `defaults` what they lack, group by group."""
    filled = dict(values)
    for key, default in defaults.items():
        if key not in filled:
            filled[key] = default
        elif isinstance(default, dict) and isinstance(filled[key], dict):
            filled[key] = _under(filled[key], default)
    return filled
