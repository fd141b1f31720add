"""No choice looks at the labels that figures are reported on.

A set that a recipe marks as its target is built without labels; these go into a file of their own, of a type that
`evaluate` stages alone take. So no data set, score table or model downstream can hold them. What is left to refuse are
ways around the build.
"""

import os
from collections.abc import Iterator
from typing import Any

from fasttrain.recipes.command import files_of
from fasttrain.recipes.graph import Stage
from fasttrain.recipes.kinds import is_withheld
from fasttrain.recipes.references import ExternalFile
from fasttrain.recipes.schema import RecipeFile


def target_problems(recipe: RecipeFile, stages: list[Stage]) -> list[str]:
    """Where labels of a target set could be seen by a stage that must not."""
    targets = [path for stage in stages for path in _target_paths(stage)]
    unused = [name for name, spec in recipe.files.items() if spec.target and not _is_used(name, stages)]
    problems = [f"file {name}: it is marked as target, but no stage uses it" for name in unused]
    for stage in stages:
        problems += _misuse(stage)
        problems += [
            f"stage {stage.name}: {path} holds or lies in {target}, a target set, whose labels it must not see; refer "
            "to the file by its name"
            for path in _plain_paths(stage.body)
            for target in targets
            if _overlap(path, target)
        ]
    return list(dict.fromkeys(problems))


def _misuse(stage: Stage) -> Iterator[str]:
    where = f"stage {stage.name}"
    for entry, file in files_of(stage):
        if isinstance(file, ExternalFile) and file.target and not entry.sees_target:
            yield (
                f"{where}: {entry.key}: {file} is a target set, whose labels it must not see; build it first, and take "
                "the data set of that stage"
            )
    if stage.kind.name != "build" or not is_withheld(stage.body):
        return
    sources = stage.body["sources"]
    others = [source for source in (sources if isinstance(sources, list) else [sources]) if not _is_target(source)]
    if others:
        yield f"{where}: sources: a target set is built by itself, not together with {others[0]}"
    if "labels" in stage.body:
        yield (
            f"{where}: labels: a target set is built without any; to give its samples other labels build them once "
            "more, from the data set of this stage"
        )


def _is_target(file: Any) -> bool:
    return isinstance(file, ExternalFile) and file.target


def _target_paths(stage: Stage) -> Iterator[str]:
    for _, file in files_of(stage):
        if isinstance(file, ExternalFile) and file.target:
            yield file.path


def _is_used(name: str, stages: list[Stage]) -> bool:
    return any(isinstance(file, ExternalFile) and file.name == name for stage in stages for _, file in files_of(stage))


def _plain_paths(value: Any) -> Iterator[str]:
    """All texts in `value`, and all declared files that are no targets, as far as they exist."""
    if isinstance(value, ExternalFile) and not value.target:
        value = value.path
    if isinstance(value, str):
        if value and "\n" not in value and os.path.exists(value):
            yield value
    elif isinstance(value, dict | list):
        for entry in value.values() if isinstance(value, dict) else value:
            yield from _plain_paths(entry)


def _overlap(one: str, other: str) -> bool:
    first, second = os.path.realpath(one), os.path.realpath(other)
    return os.path.commonpath([first, second]) in (first, second)
