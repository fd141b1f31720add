"""The command line of a stage."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fasttrain.base.config import read_config
from fasttrain.recipes.graph import Stage
from fasttrain.recipes.kind import Input
from fasttrain.recipes.load import merge
from fasttrain.recipes.references import ExternalFile, StageOutput
from fasttrain.recipes.toolbox import Toolbox

SETTINGS = "settings.yaml"
# The runner's own: how a command answers, where it writes, how it goes on.
RESERVED = frozenset({"json", "out", "resume", "force", "set", "val_out", "withhold_labels", "kept", "truth"})
File = str | ExternalFile | StageOutput
Locate = Callable[[StageOutput], str]


@dataclass(frozen=True)
class StageCommand:
    """What does a stage.

    Attributes:
        arguments: behind ``fasttrain``.
        settings: for the file `SETTINGS` in the stage's folder, None without one.
    """

    arguments: list[str]
    settings: dict[str, Any] | None = None


def command_of(stage: Stage, toolbox: Toolbox, folder: Path, locate: Locate) -> StageCommand:
    """The command that does `stage` and writes into `folder`.

    Args:
        locate: path of another stage's output.
    """
    kind, body = stage.kind, {**stage.kind.defaults(stage.body), **stage.body}
    words = list(kind.command)
    settings = None
    if kind.takes_settings:
        settings = settings_of(body, locate)
        settings["out"] = str(folder / (kind.out_setting or "out"))
        words += ["--config", str(folder / SETTINGS)]
    else:
        words += [path for entry in kind.inputs if entry.positional for _, path in _paths(entry, body, locate)]
        words += [
            str(folder / output.file_of(body)) for output in kind.outputs_of(body).values() if output.option == ""
        ]
        options = toolbox.options(kind.command) or {}
        for key, value in body.items():
            entry = kind.input(key)
            if entry is not None and entry.positional:
                continue
            paths = [path for _, path in _paths(entry, body, locate)] if entry is not None else None
            given = value if paths is None else paths if isinstance(value, list) else paths[0]
            option = options.get(kind.renamed.get(key, key))
            if option is not None and given is not None:
                words += option.words(given)
    for output in kind.outputs_of(body).values():
        if output.option:
            words += [output.option, str(folder / output.file_of(body))]
    if kind.resume is not None:
        words.append(kind.resume)
    return StageCommand([*words, "--json"], settings)


def settings_of(body: dict[str, Any], locate: Locate) -> dict[str, Any]:
    """The settings of a stage that takes a file of them, on those that its key ``config`` names."""
    values = _located({key: value for key, value in body.items() if key != "config"}, locate)
    return merge(read_config(body["config"]), values) if "config" in body else values


def files_of(stage: Stage) -> Iterator[tuple[Input, File]]:
    """All files that a stage reads, with the input that each is given to."""
    for entry in stage.kind.inputs:
        for _, file in _entries(entry, stage.value(entry.key)):
            if not isinstance(file, str) or not entry.is_word(file):
                yield entry, file


def _entries(entry: Input, value: Any) -> list[tuple[str, Any]]:
    """What an input was given, each with its name ("" without)."""
    if value is None:
        return []
    if entry.named and isinstance(value, dict):
        return [(str(name), file) for name, files in value.items() for _, file in _entries(_many(entry), files)]
    return [("", file) for file in (value if isinstance(value, list) else [value])]


def _many(entry: Input) -> Input:
    return Input(entry.key, entry.types, many=True)


def _paths(entry: Input, body: dict[str, Any], locate: Locate) -> list[tuple[str, str]]:
    return [(name, _located(file, locate)) for name, file in _entries(entry, body.get(entry.key))]


def _located(value: Any, locate: Locate) -> Any:
    """`value`, which may be nested, with files as their paths."""
    if isinstance(value, StageOutput):
        return locate(value)
    if isinstance(value, ExternalFile):
        return value.path
    if isinstance(value, dict):
        return {key: _located(entry, locate) for key, entry in value.items()}
    if isinstance(value, list):
        return [_located(entry, locate) for entry in value]
    return value
