"""Typed settings: unknown keys are errors that name the nearest known key; ``a.b=c`` overrides; YAML files."""

import difflib
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from fasttrain.base.errors import ConfigError

SettingsT = TypeVar("SettingsT", bound="Settings")


class Settings(BaseModel):
    """Base of every settings class. Immutable; keys that it does not know are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


def refuse_idle(settings: Settings, used: set[str], by: str) -> None:
    """Refuse settings that would have no effect, for validators.

    Args:
        used: names of those that have one.
        by: what the others mean nothing to.

    Raises:
        ValueError: another one differs from its default.
    """
    for name, field in type(settings).model_fields.items():
        if name not in used and getattr(settings, name) != field.default:
            raise ValueError(f"{name} means nothing to {by}; leave it out")


def nearest_name(name: str, known: list[str]) -> str:
    """What to say of a name that is not among those known: the nearest of them, or all."""
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {nearest[0]!r}?" if nearest else f"known are {', '.join(known)}"


def load_settings(cls: type[SettingsT], values: dict[str, Any], where: str = "settings") -> SettingsT:
    """Validate `values` into `cls`.

    Raises:
        ConfigError: one line a problem, each naming `where`, the key, and for an unknown key the nearest known one.
    """
    try:
        return cls.model_validate(values)
    except ValidationError as error:
        problems = [_explain(cls, problem) for problem in error.errors()]
        raise ConfigError(f"{where}: " + "; ".join(problems)) from None


def _explain(cls: type[Settings], problem: Any) -> str:
    location = [str(part) for part in problem["loc"]]
    key = ".".join(location)
    if problem["type"] != "extra_forbidden":
        message = problem["msg"].removeprefix("Value error, ")  # pydantic's word for what our validators say
        return f"{key}: {message} (got {problem['input']!r})"
    known = _known_keys(cls)
    nearest = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    hint = f"did you mean {nearest[0]!r}?" if nearest else f"known keys: {', '.join(sorted(known))}"
    return f"unknown key {key!r}; {hint}"


def _known_keys(cls: type[BaseModel], prefix: str = "") -> list[str]:
    """Dotted names of all settings of `cls`, nested ones included."""
    keys = []
    for name, field in cls.model_fields.items():
        key = prefix + (field.alias or name)
        groups = _groups(field.annotation)
        for group in groups:
            keys += _known_keys(group, f"{key}.")
        if not groups:
            keys.append(key)
    return keys


def _groups(annotation: Any) -> list[type[Settings]]:
    """The groups of settings that a value may be."""
    if isinstance(annotation, type):
        return [annotation] if issubclass(annotation, Settings) else []
    return [group for part in get_args(annotation) for group in _groups(part)]


def apply_overrides(values: dict[str, Any], overrides: list[str]) -> dict[str, Any]:
    """Return `values` with ``a.b=c`` overrides put in; the right-hand side is read as YAML (``1e-3``, ``[1, 2]``)."""
    result = _copy_nested(values)
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator or not key:
            raise ConfigError(f"--set {override!r} is not of the form key=value, as in --set optimizer.lr=0.01")
        *parents, leaf = key.split(".")
        target = result
        for parent in parents:
            target = target.setdefault(parent, {})
            if not isinstance(target, dict):
                raise ConfigError(f"--set {override!r}: {parent!r} is a plain value, not a group of settings")
        target[leaf] = parse_scalar(text)
    return result


def parse_scalar(text: str) -> Any:
    """Read a YAML value; unlike YAML 1.1, ``1e-3`` is a number."""
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read a YAML file that holds a mapping of settings."""
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold a mapping of settings, not a {type(values).__name__}")
    return values


def read_config(path: str | Path, group: str = "") -> dict[str, Any]:
    """Read a YAML file of settings, or the recipe of that name which comes with the package.

    Args:
        group: folder among the recipes that the name is looked for in.

    Raises:
        ConfigError: there is neither (the message names the recipes), or it is a recipe of several stages.
    """
    values = _read_named(path, group)
    if "stages" in values:
        raise ConfigError(f"{path} is a recipe of several stages, not settings of one run; see `fasttrain recipe run`")
    return values


def _read_named(path: str | Path, group: str) -> dict[str, Any]:
    if Path(path).exists() or Path(path).name != str(path) or Path(path).suffix:
        return read_yaml(path)
    try:
        recipes = files("fasttrain.recipes").joinpath(group)
    except ModuleNotFoundError:  # a checkout that was installed before it had any
        return read_yaml(path)
    names = sorted(entry.name.removesuffix(".yaml") for entry in recipes.iterdir() if entry.name.endswith(".yaml"))
    if str(path) not in names:
        raise ConfigError(f"{path}: no such file, and no recipe of that name; there are {', '.join(names)}")
    with as_file(recipes / f"{path}.yaml") as found:
        return read_yaml(found)


def _copy_nested(values: dict[str, Any]) -> dict[str, Any]:
    return {key: _copy_nested(value) if isinstance(value, dict) else value for key, value in values.items()}
