"""What is wrong with a recipe, found before anything is spent."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fasttrain.base.config import nearest_name
from fasttrain.base.errors import ConfigError
from fasttrain.recipes.classes import class_problems
from fasttrain.recipes.command import RESERVED, command_of, files_of, settings_of
from fasttrain.recipes.expand import RecipeProblems
from fasttrain.recipes.graph import Stage
from fasttrain.recipes.kind import FIGURES, IMAGES, TRUTH, WITHHELD, Input
from fasttrain.recipes.references import ExternalFile, StageOutput
from fasttrain.recipes.resources import Machine, gpus_of, processes_of
from fasttrain.recipes.schema import HEAD_KEYS, RecipeFile
from fasttrain.recipes.targets import target_problems
from fasttrain.recipes.toolbox import Toolbox

_SUFFIX_TYPES = {".beton": "dataset", ".arrow": "table", ".safetensors": "checkpoint"}


def check(
    recipe: RecipeFile, stages: list[Stage], toolbox: Toolbox, machine: Machine | None, folder: Path
) -> list[str]:
    """All problems, one sentence each.

    Args:
        stages: of `recipe`, expanded.
        machine: that the stages are to run on; None to leave that open.
        folder: of the outputs; finished ones tell their classes.
    """
    by_name = {stage.name: stage for stage in stages}
    problems: list[str] = []
    for stage in stages:
        found = list(_stage_problems(stage, by_name, toolbox, machine))
        problems += found or _command_problems(stage, toolbox, folder)
    problems += target_problems(recipe, stages)
    if not problems:
        problems += class_problems(stages, toolbox, folder)
    return list(dict.fromkeys(problems))


def require_sound(
    recipe: RecipeFile, stages: list[Stage], toolbox: Toolbox, machine: Machine | None, folder: Path
) -> None:
    """Raise a RecipeProblems if there are any (see `check`)."""
    problems = check(recipe, stages, toolbox, machine, folder)
    if problems:
        raise RecipeProblems(problems)


def _stage_problems(
    stage: Stage, by_name: dict[str, Stage], toolbox: Toolbox, machine: Machine | None
) -> Iterator[str]:
    yield from _key_problems(stage, toolbox)
    for entry in stage.kind.inputs:
        yield from _shape_problems(stage, entry)
    for entry, file in files_of(stage):
        problem = _file_problem(entry, file, by_name)
        if problem is not None:
            yield f"stage {stage.name}: {entry.key}: {problem}"
    yield from _misplaced(stage)
    yield from _machine_problems(stage, machine)


def _key_problems(stage: Stage, toolbox: Toolbox) -> Iterator[str]:
    kind = stage.kind
    for key in stage.body:
        if key in RESERVED:
            yield f"stage {stage.name}: {key} is set by the runner; leave it out"
    if kind.takes_settings:
        return  # the settings themselves say what they know
    options = {*(toolbox.options(kind.command) or {}), *kind.renamed} - set(kind.renamed.values()) - RESERVED
    files = [entry.key for entry in kind.inputs if entry.positional or entry.key in options]
    known = list(dict.fromkeys([*files, *sorted(options)]))
    for key in stage.body:
        if key not in known and key not in RESERVED:
            hint = nearest_name(key, [*known, *HEAD_KEYS])
            yield f"stage {stage.name}: {kind.name} knows no {key!r}; {hint}"


def _shape_problems(stage: Stage, entry: Input) -> Iterator[str]:
    value, where = stage.value(entry.key), f"stage {stage.name}: {entry.key}"
    if value is None:
        if entry.required:
            yield f"{where} is missing: a {stage.kind.name} stage needs it"
        return
    if entry.named:
        if not isinstance(value, dict):
            yield f"{where} must be a mapping of names to files"
        return
    if isinstance(value, list):
        if not entry.many:
            named = ", ".join(str(file) for file in value[:3])
            yield f"{where} takes one file, not {len(value)} ({named}, …); select one, as ${{stage[round=last]}}"
        elif not value:
            yield f"{where} is empty"
    elif not isinstance(value, str | ExternalFile | StageOutput):
        yield f"{where} takes a file or the output of a stage, not {value!r}"


def _file_problem(entry: Input, file: Any, by_name: dict[str, Stage]) -> str | None:
    """What is wrong with a file that is given to an input."""
    if isinstance(file, StageOutput):
        source = by_name[file.stage]
        output = next(output for output in source.kind.outputs if output.name == file.output)
        if not output.when(source.body):
            return f"{file} is not there: with its settings {source.name} writes no {file.output}"
        written = output.type_of(source.body)
        if written in entry.types:
            return None
        if written == TRUTH:
            return f"{file} holds the masks of a target set, which `segment_evaluate` stages alone may read"
        if output.type == WITHHELD:
            return f"{file} holds the labels of a target set, which `evaluate` stages alone may read"
        if output.type == FIGURES:
            return f"{file} holds figures, which nothing may depend on"
        return f"{file} is of type {written}, not {' or '.join(entry.types)}"
    path = file.path if isinstance(file, ExternalFile) else file
    if not isinstance(path, str):
        return f"takes a file or the output of a stage, not {path!r}"
    stated = (file.type if isinstance(file, ExternalFile) else None) or _SUFFIX_TYPES.get(Path(path).suffix)
    if stated is not None and stated not in entry.types and not (stated == "checkpoint" and "weights" in entry.types):
        return f"{path} is of type {stated}, not {' or '.join(entry.types)}"
    if not _exists(path):
        return f"{path}: no such file" + (" or folder" if IMAGES in entry.types else "")
    return None


def _exists(path: str) -> bool:
    """Whether a file is there; a pattern in braces (``x-{000..012}.tar``) is left to the command."""
    return "{" in path or Path(path).exists()


def _misplaced(stage: Stage) -> Iterator[str]:
    """Outputs and files where the command takes none."""
    inputs = {entry.key for entry in stage.kind.inputs}

    def walk(value: Any, key: str) -> Iterator[str]:
        if key in inputs:
            return
        if isinstance(value, StageOutput | ExternalFile):
            yield f"stage {stage.name}: {key} takes no file, so {value} cannot stand there"
        elif isinstance(value, dict):
            for name, entry in value.items():
                yield from walk(entry, f"{key}.{name}" if key else str(name))
        elif isinstance(value, list):
            for entry in value:
                yield from walk(entry, key)

    yield from walk(stage.body, "")


def _machine_problems(stage: Stage, machine: Machine | None) -> Iterator[str]:
    head, kind = stage.head, stage.kind
    if not kind.torchrun and ((head.nproc or 1) > 1 or head.nodes > 1 or (head.gpus or 0) > 1):
        yield f"stage {stage.name}: a {kind.name} stage is one process; leave out gpus, nproc and nodes"
        return
    if head.gpus and head.nproc and head.nproc != head.gpus:
        yield f"stage {stage.name}: nproc {head.nproc} and gpus {head.gpus} differ; there is one process a GPU"
    if machine is None:
        return
    if gpus_of(stage, machine) > len(machine.gpus):
        there = f"{len(machine.gpus)} there" if machine.gpus else "none there"
        yield f"stage {stage.name}: it asks for {head.gpus} GPUs, and there are {there}".replace("are none", "is none")
    if head.nodes > 1 and not machine.slurm:
        yield f"stage {stage.name}: it asks for {head.nodes} machines; `fasttrain recipe slurm` writes jobs for them"
    if processes_of(stage, machine) > 1 and not head.gpus and (head.nproc or 1) > machine.cores:
        yield f"stage {stage.name}: it asks for {head.nproc} processes on {machine.cores} cores"


def _command_problems(stage: Stage, toolbox: Toolbox, folder: Path) -> list[str]:
    """What the command itself says, asked without running it."""

    def locate(output: StageOutput) -> str:
        return str(folder / output.stage / output.output)

    where = f"stage {stage.name}"
    try:
        if stage.kind.takes_settings:
            said = toolbox.settings_error(stage.kind.command, settings_of(stage.body, locate))
        else:
            said = toolbox.usage_error(command_of(stage, toolbox, folder, locate).arguments)
    except ConfigError as error:
        said = str(error)
    return [] if said is None else [f"{where}: {said}"]
