"""Which classes flow through a recipe, as far as they are known before it runs."""

from pathlib import Path
from typing import Any

from fasttrain.recipes.command import files_of
from fasttrain.recipes.graph import Stage
from fasttrain.recipes.kind import CLASSES, DATASET, Input
from fasttrain.recipes.references import ExternalFile, StageOutput
from fasttrain.recipes.toolbox import Toolbox

Classes = list[str] | None


def class_problems(stages: list[Stage], toolbox: Toolbox, folder: Path) -> list[str]:
    """Where data sets, models and tables of different classes meet.

    Args:
        stages: in an order in which they can be done.
        folder: of the outputs; those that are there tell the classes where the recipe does not.
    """
    known: dict[str, Classes] = {}
    problems: list[str] = []
    for stage in stages:
        of_inputs: dict[str, list[tuple[Any, list[str]]]] = {}
        for entry, file in files_of(stage):
            names = known[file.stage] if isinstance(file, StageOutput) else _external(entry, file, toolbox)
            if names is not None:
                of_inputs.setdefault(entry.key, []).append((file, names))
        problems += _differing(stage, of_inputs) + _strangers(stage, of_inputs)
        known[stage.name] = _of_stage(stage, of_inputs)
        if known[stage.name] is None:
            known[stage.name] = _of_output(stage, toolbox, folder)
    return problems


def _external(entry: Input, file: str | ExternalFile, toolbox: Toolbox) -> Classes:
    path = Path(file.path if isinstance(file, ExternalFile) else file)
    if path.suffix == ".txt" and CLASSES not in entry.types:
        return None  # a list of images, or of ids
    return toolbox.class_names(path) if path.exists() else None


def _of_stage(stage: Stage, of_inputs: dict[str, list[tuple[Any, list[str]]]]) -> Classes:
    kind = stage.kind
    for key in kind.same_classes:
        if of_inputs.get(key):
            return of_inputs[key][0][1]
    if of_inputs.get("classes"):
        return of_inputs["classes"][0][1]
    if kind.name == "build":
        return _of_build(stage, [names for _, names in of_inputs.get("sources", [])])
    return None


def _of_build(stage: Stage, found: list[list[str]]) -> Classes:
    sources = stage.body.get("sources")
    count = len(sources) if isinstance(sources, list) else 1
    if len(found) < count or not found:
        return None
    same = all(names == found[0] for names in found)
    return found[0] if same else sorted({name for names in found for name in names})


def _of_output(stage: Stage, toolbox: Toolbox, folder: Path) -> Classes:
    output = stage.kind.outputs[0]
    path = folder / stage.folder / output.file_of(stage.body)
    return toolbox.class_names(path) if path.is_file() else None


def _differing(stage: Stage, of_inputs: dict[str, list[tuple[Any, list[str]]]]) -> list[str]:
    """Inputs that are joined must have equal classes; data sets number them, so theirs must be in one order."""
    problems = []
    for key in stage.kind.same_classes:
        found = of_inputs.get(key, [])
        in_order = DATASET in _types(stage.kind.input(key))
        for file, names in found[1:]:
            first_file, first = found[0]
            if names != first if in_order else set(names) != set(first):
                problems.append(
                    f"stage {stage.name}: {key}: {first_file} and {file} have different classes "
                    f"({_difference(first, names)}); build them with the same classes file"
                )
    return problems


def _types(entry: Input | None) -> tuple[str, ...]:
    return entry.types if entry is not None else ()


def _difference(first: list[str], second: list[str]) -> str:
    alone = [name for name in first if name not in set(second)] or [name for name in second if name not in set(first)]
    return f"{alone[0]!r} is in one alone" if alone else "their order differs"


def _strangers(stage: Stage, of_inputs: dict[str, list[tuple[Any, list[str]]]]) -> list[str]:
    problems = []
    for key, knowing in stage.kind.known_classes:
        model = {name for _, names in of_inputs.get(knowing, []) for name in names}
        for file, names in of_inputs.get(key, []) if model else []:
            strangers = [name for name in names if name not in model]
            if strangers:
                problems.append(
                    f"stage {stage.name}: {key}: the class {strangers[0]!r} of {file} is unknown to the {knowing} "
                    f"({len(strangers)} such)"
                )
    return problems
