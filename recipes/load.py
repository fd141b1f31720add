"""Recipe files: found by path or name, put upon their bases, changed by ``--set``."""

from importlib.resources import files
from pathlib import Path
from typing import Any

from fasttrain.base.config import apply_overrides, load_settings, nearest_name, read_yaml
from fasttrain.base.errors import ConfigError
from fasttrain.recipes.schema import RecipeFile

BASE = "base"
_GROUPS = ("vars", "files", "stages")


def load_recipe(where: str | Path, overrides: list[str] | None = None) -> RecipeFile:
    """Read a recipe.

    Args:
        where: a file, or the name of a recipe that comes with the package.
        overrides: ``a.b=c``; ``name=value`` for the variable `name`, ``stages.STAGE.key=value`` and so on for others.

    Raises:
        ConfigError: a file is missing or no recipe, bases form a circle, or an override fits nothing.
    """
    path = find_recipe(where)
    values = _with_bases(path, ())
    if "stages" not in values:
        raise ConfigError(f"{path} is no recipe: it has no stages (settings of one run are for `fasttrain train`)")
    values.setdefault("name", path.stem)
    overrides = [_completed(override, values) for override in overrides or []]
    return load_settings(RecipeFile, without_none(apply_overrides(values, overrides)), str(path))


def find_recipe(where: str | Path) -> Path:
    """The file of a recipe."""
    path = Path(where)
    if path.exists() or path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise ConfigError(f"{path}: no such file")
        return path
    folder = Path(str(files("fasttrain.recipes")))
    found = {str(entry.relative_to(folder).with_suffix("")): entry for entry in sorted(folder.rglob("*.yaml"))}
    found = {name: entry for name, entry in found.items() if "stages" in read_yaml(entry)}
    for name, entry in found.items():
        if str(where) in (name, entry.stem):
            return entry
    raise ConfigError(f"{where}: no such file, and no recipe of that name; {nearest_name(str(where), list(found))}")


def merge(base: dict[str, Any], over: dict[str, Any], *, keeps_none: bool = False) -> dict[str, Any]:
    """`base` with the values of `over` put in, mapping by mapping; None takes a key away.

    With `keeps_none` it stays, to take the key away from what the result is put into.
    """
    merged = dict(base)
    for key, value in over.items():
        if isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = merge(merged[key], value, keeps_none=keeps_none)
        elif value is None and not keeps_none:
            merged.pop(key, None)
        else:
            merged[key] = value
    return merged


def without_none(value: dict[str, Any]) -> dict[str, Any]:
    """`value` without the keys that hold None: what takes away where there is no base to take from."""
    return {
        key: without_none(entry) if isinstance(entry, dict) else entry
        for key, entry in value.items()
        if entry is not None
    }


def _with_bases(path: Path, below: tuple[Path, ...]) -> dict[str, Any]:
    if path.resolve() in below:
        chain = " → ".join(entry.name for entry in (*below, path))
        raise ConfigError(f"{path}: the bases of the recipe form a circle: {chain}")
    values = _in_folder(read_yaml(path), path.parent)
    base = values.pop(BASE, None)
    if base is None:
        return values
    if not isinstance(base, str):
        raise ConfigError(f"{path}: base must name one recipe, not {base!r}")
    beside = path.parent / base
    return merge(_with_bases(beside if beside.exists() else find_recipe(base), (*below, path.resolve())), values)


def _in_folder(value: Any, folder: Path) -> Any:
    """`value` with ``${recipe_dir}`` put in: each file of a chain of bases means its own folder."""
    if isinstance(value, str):
        return value.replace("${recipe_dir}", str(folder))
    if isinstance(value, list):
        return [_in_folder(entry, folder) for entry in value]
    if isinstance(value, dict):
        return {key: _in_folder(entry, folder) for key, entry in value.items()}
    return value


def _completed(override: str, values: dict[str, Any]) -> str:
    """``name=value`` of a variable as ``vars.name=value``.

    Raises:
        ConfigError: there is no such variable, stage or file.
    """
    key, separator, text = override.partition("=")
    first, *rest = key.split(".")
    if first in _GROUPS and rest:
        known = list(values.get(first) or {})
        if rest[0] not in known:
            raise ConfigError(
                f"--set {override}: there is no {rest[0]!r} among {first}; {nearest_name(rest[0], known)}"
            )
        return override
    if first in RecipeFile.model_fields and not rest:
        return override
    known = list(values.get("vars") or {})
    if first not in known:
        choices = [*known, *(f"{group}." for group in _GROUPS)]
        raise ConfigError(f"--set {override}: there is no variable {first!r}; {nearest_name(first, choices)}")
    return f"vars.{key}{separator}{text}"
