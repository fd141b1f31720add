"""What the recipes' runner is told about the commands (`fasttrain.recipes.toolbox.Toolbox`)."""

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import typer

from fasttrain.base.errors import FasttrainError
from fasttrain.recipes.toolbox import Option


class CommandLine:
    """The commands of the application `app`."""

    def __init__(self, app: typer.Typer) -> None:
        self._app = app
        self._classes: dict[Path, list[str] | None] = {}

    @cached_property
    def _root(self) -> Any:
        return typer.main.get_command(self._app)

    def _find(self, command: Sequence[str]) -> Any | None:
        found = self._root
        for word in command:
            found = getattr(found, "commands", {}).get(word)
        return found

    def options(self, command: Sequence[str]) -> dict[str, Option] | None:
        """The options of a command by key; None if there is no such command."""
        found = self._find(command)
        if found is None:
            return None
        options = {}
        for parameter in found.params:
            flags = [flag for flag in parameter.opts if flag.startswith("--")]
            if parameter.param_type_name == "option" and flags and "--help" not in flags:
                negative = next((flag for flag in parameter.secondary_opts if flag.startswith("--")), None)
                option = Option(flags[0], negative, bool(parameter.is_flag), bool(parameter.multiple))
                options[flags[0].removeprefix("--").replace("-", "_")] = option
        return options

    def usage_error(self, arguments: Sequence[str]) -> str | None:
        """What a command says of a command line that it would not take; it is not run."""
        found, words = self._root, list(arguments)
        while words and words[0] in getattr(found, "commands", {}):
            found = found.commands[words.pop(0)]
        try:
            found.make_context(None, words)
        except Exception as error:  # the library's own, which goes by several names in its versions
            told = getattr(error, "format_message", None)
            if told is None:
                raise
            return str(told())
        return None

    def settings_error(self, command: Sequence[str], values: dict[str, Any]) -> str | None:
        """What a command that trains says of a file of settings."""
        from fasttrain.base.config import load_settings
        from fasttrain.training.optimizers import check_optimizer
        from fasttrain.training.tasks import SETTINGS, task_of

        try:
            settings = load_settings(SETTINGS[tuple(command)], values, "settings")
            check_optimizer(settings.optimizer)
            task_of(settings)  # which knows the models' names
        except FasttrainError as error:
            return str(error)
        return None

    def class_names(self, path: Path) -> list[str] | None:
        """The classes of a `.beton` (of its masks, where its images have none), a score table, a checkpoint, a folder
        of class folders, or a file of names."""
        if path not in self._classes:
            try:
                self._classes[path] = _class_names(path)
            except (FasttrainError, OSError):  # the command that takes it will say what is wrong
                self._classes[path] = None
        return self._classes[path]


def _class_names(path: Path) -> list[str] | None:
    if path.is_dir():
        return _class_folders(path)
    if path.suffix == ".beton":
        from fasttrain.beton_build.reader import BetonReader

        with BetonReader(path) as reader:
            names = reader.class_names or (reader.masks.classes if reader.masks is not None else None)
            return list(names) if names else None
    if path.suffix == ".arrow":
        from fasttrain.scores.table import ScoreTable

        return ScoreTable.read(path).classes
    if path.suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(path, framework="np") as file:
            record = json.loads((file.metadata() or {}).get("fasttrain", "{}"))
        return record.get("class_names")
    if path.suffix == ".txt":
        from fasttrain.beton_build.labels import read_class_names

        return read_class_names(path)
    return None


def _class_folders(folder: Path) -> list[str] | None:
    """The folders of classes; None where there is anything else, which `build` has to look into."""
    entries = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    published = any((entry / "labels.csv").exists() for entry in entries)
    if len(entries) < 2 or published or not all(entry.is_dir() for entry in entries):
        return None
    return sorted(entry.name for entry in entries)
