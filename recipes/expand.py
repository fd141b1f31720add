"""From a recipe to its stages: loops and sweeps unrolled, references resolved, each stage after those it needs."""

import re
from collections.abc import Iterator
from itertools import product
from typing import Any

from fasttrain.base.config import load_settings, nearest_name
from fasttrain.base.errors import ConfigError, FasttrainError
from fasttrain.recipes.graph import Stage, ordered, stage_name
from fasttrain.recipes.kind import TYPES, Kind
from fasttrain.recipes.kinds import find_kind
from fasttrain.recipes.load import merge, without_none
from fasttrain.recipes.references import (
    ABSENT,
    ExternalFile,
    Lookup,
    Reference,
    StageOutput,
    resolve,
)
from fasttrain.recipes.schema import HEAD_KEYS, RecipeFile, StageHead
from fasttrain.recipes.toolbox import Toolbox

_LABEL = re.compile(r"[\w.+-]+")
Axes = dict[str, dict[str, Any]]  # of each axis, its values by the label that names them


class RecipeProblems(FasttrainError):
    """What is wrong with a recipe.

    Attributes:
        problems: one sentence each.
    """

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("\n  ".join(problems))


def expand(recipe: RecipeFile, toolbox: Toolbox) -> list[Stage]:
    """All stages, each after those that it needs.

    Raises:
        RecipeProblems: references, loops or kinds are wrong; each is named.
    """
    return _Expansion(recipe, toolbox).stages()


class _Expansion:
    def __init__(self, recipe: RecipeFile, toolbox: Toolbox) -> None:
        self.recipe, self.toolbox = recipe, toolbox
        self.problems: list[str] = []
        self.heads: dict[str, StageHead] = {}
        self.kinds: dict[str, Kind] = {}
        self.axes: dict[str, Axes] = {}

    def stages(self) -> list[Stage]:
        for name, values in self.recipe.stages.items():
            with _noting(self.problems):
                head = {key: value for key, value in values.items() if key in HEAD_KEYS}
                self.heads[name] = load_settings(StageHead, head, f"stage {name}")
                self.kinds[name] = find_kind(self.heads[name].kind, self.toolbox, f"stage {name}")
        for name in self.heads:
            with _noting(self.problems):
                self.axes[name] = self._axes_of(name, ())
        stages = [stage for name in self.axes if name in self.kinds for stage in self._unrolled(name)]
        if not self.problems:
            with _noting(self.problems):
                stages = ordered(stages)
        if self.problems:
            raise RecipeProblems(list(dict.fromkeys(self.problems)))
        return stages

    # --- axes -------------------------------------------------------------------------------------------------------

    def _axes_of(self, name: str, asked: tuple[str, ...]) -> Axes:
        head = self.heads[name]
        if name in asked:
            raise ConfigError(f"stage {name}: `each` leads round in a circle: {' → '.join((*asked, name))}")
        axes: Axes = {}
        if head.each is not None:
            if head.each not in self.heads:
                hint = nearest_name(head.each, list(self.heads))
                raise ConfigError(f"stage {name}: each: there is no stage {head.each!r}; {hint}")
            axes |= self._axes_of(head.each, (*asked, name))
        for group, what in ((head.loops, "for"), (head.sweep, "sweep")):
            for axis, values in group.items():
                if axis in axes:
                    raise ConfigError(f"stage {name}: the axis {axis!r} is there twice")
                if what == "for" and axis in self._names:
                    raise ConfigError(f"stage {name}: for: {axis!r} is the name of something else; take another")
                axes[axis] = _labelled(resolve(values, self._outside(name)), f"stage {name}: {what}: {axis}")
        return axes

    @property
    def _names(self) -> set[str]:
        return {*self.recipe.vars, *self.recipe.files, *self.recipe.stages}

    def _outside(self, name: str) -> Lookup:
        """What references mean where no stage may be named."""

        def lookup(reference: Reference) -> Any:
            if reference.name in self.recipe.stages:
                raise ConfigError(f"stage {name}: {reference.text}: loops and sweeps take values, not outputs")
            return self._lookup(reference, name, {})

        return lookup

    # --- stages -----------------------------------------------------------------------------------------------------

    def _unrolled(self, name: str) -> Iterator[Stage]:
        axes = self.axes[name]
        for labels in product(*(values for values in axes.values())):
            with _noting(self.problems):
                yield self._stage(name, dict(zip(axes, labels, strict=True)))

    def _stage(self, template: str, labels: dict[str, str]) -> Stage:
        head = self.heads[template]
        body = {key: value for key, value in self.recipe.stages[template].items() if key not in HEAD_KEYS}
        values = {axis: self.axes[template][axis][label] for axis, label in labels.items()}
        for axis in head.sweep:
            body = merge(body, _nested(axis, values[axis]))
        name = stage_name(template, labels)

        def lookup(reference: Reference) -> Any:
            if reference.name in values:
                return _walk(values[reference.name], reference, name)
            return self._lookup(reference, name, labels)

        given = resolve(head.settings, lookup)
        beneath: dict[str, Any] = {}
        for settings in given if isinstance(given, list) else [given]:
            if not isinstance(settings, dict):
                raise ConfigError(f"stage {name}: with: must be a mapping of settings, not {settings!r}")
            beneath = merge(beneath, settings, keeps_none=True)
        body = resolve(merge(beneath, body, keeps_none=True), lookup)
        body = {key: value for key, value in body.items() if value is not ABSENT}
        if "config" not in body:  # there is nothing beneath to take from
            body = without_none(body)
        return Stage(name, template, labels, self.kinds[template], head, body)

    # --- references -------------------------------------------------------------------------------------------------

    def _lookup(self, reference: Reference, stage: str, labels: dict[str, str], inside: tuple[str, ...] = ()) -> Any:
        name, recipe = reference.name, self.recipe
        if name in recipe.stages:
            return self._outputs(reference, stage, labels)
        if reference.selection:
            raise ConfigError(f"stage {stage}: {reference.text}: only stages have axes to select from")
        if name in recipe.files:
            return self._file(reference, stage)
        if name not in recipe.vars:
            hint = nearest_name(name, sorted(self._names | labels.keys()))
            raise ConfigError(f"stage {stage}: {reference.text} stands for nothing; {hint}")
        if name in inside:
            raise ConfigError(f"the variables {', '.join(inside)} refer to each other in a circle")
        value = resolve(recipe.vars[name], lambda other: self._lookup(other, stage, labels, (*inside, name)))
        return _walk(value, reference, stage)

    def _file(self, reference: Reference, stage: str) -> ExternalFile:
        spec = self.recipe.files[reference.name]
        if reference.path:
            raise ConfigError(f"stage {stage}: {reference.text}: a file has no {reference.path[0]!r}")
        if spec.type is not None and spec.type not in TYPES:
            hint = nearest_name(spec.type, list(TYPES))
            raise ConfigError(f"file {reference.name}: there is no type {spec.type!r}; {hint}")
        path = resolve(spec.path, self._outside(f"files.{reference.name}"))
        return ExternalFile(reference.name, str(path), spec.type, spec.target)

    def _outputs(self, reference: Reference, stage: str, labels: dict[str, str]) -> Any:
        """One output, a list where axes are left open, or nothing before the first round."""
        template, where = reference.name, f"stage {stage}: {reference.text}"
        if template not in self.axes or template not in self.kinds:
            raise ConfigError(f"{where}: that stage is not right itself")
        if len(reference.path) > 1:
            raise ConfigError(f"{where}: an output has no parts")
        axes, selection = self.axes[template], dict(reference.selection)
        unknown = [axis for axis in selection if axis not in axes]
        if unknown:
            hint = nearest_name(unknown[0], list(axes)) if axes else "it has none"
            raise ConfigError(f"{where}: {template} has no axis {unknown[0]!r}; {hint}")
        open_axes = False
        choices: list[list[str]] = []
        for axis, values in axes.items():
            own = self.axes[_template_of(stage)].get(axis, {})
            found = _select(list(values), selection.get(axis), labels.get(axis), list(own), f"{where}: {axis}")
            open_axes |= isinstance(found, list)
            if found is None:
                return ABSENT
            choices.append(found if isinstance(found, list) else [found])
        output = self._output_name(template, reference, where)
        names = [stage_name(template, dict(zip(axes, combination, strict=True))) for combination in product(*choices)]
        outputs = [StageOutput(name, output) for name in names]
        if open_axes:
            return outputs or ABSENT
        return outputs[0]

    def _output_name(self, template: str, reference: Reference, where: str) -> str:
        outputs = self.kinds[template].outputs
        if not reference.path:
            return outputs[0].name
        names = [output.name for output in outputs]
        if reference.path[0] not in names:
            hint = nearest_name(reference.path[0], names)
            raise ConfigError(f"{where}: a {self.kinds[template].name} stage has no output of that name; {hint}")
        return reference.path[0]


def _select(
    known: list[str], wanted: str | None, here: str | None, own: list[str], where: str
) -> str | list[str] | None:
    """The label, or labels, of an axis that a reference means; None before the first one.

    Args:
        known: labels of the axis.
        wanted: what the reference says: a label, ``prev``, ``before`` (all previous ones), ``first``, ``last`` or
            ``all``.
        here: label of the stage that refers, None if it has not that axis.
        own: all labels of that stage's axis.
    """
    if wanted is None:
        wanted = here if here is not None else "all"
    if wanted in known:
        return wanted
    if wanted == "all":
        return known
    if wanted in ("first", "last"):
        return known[0] if wanted == "first" else known[-1]
    if wanted in ("prev", "before"):
        if here is None:
            raise ConfigError(f"{where}={wanted} means something only in a stage that has the axis, too")
        previous = own[: own.index(here)]
        strangers = [label for label in previous if label not in known]
        if strangers and (wanted == "before" or previous[-1] == strangers[-1]):
            raise ConfigError(f"{where}={wanted} would be {strangers[-1]}, and there are only {', '.join(known)}")
        if wanted == "before":
            return previous
        return previous[-1] if previous else None
    raise ConfigError(f"{where} has no value {wanted!r}; there are {', '.join(known)}")


def _template_of(stage: str) -> str:
    return stage.partition("[")[0]


def _labelled(values: Any, where: str) -> dict[str, Any]:
    """The values of an axis by the labels that name them."""
    if not isinstance(values, list) or not values:
        raise ConfigError(f"{where}: must be a list of values")
    result: dict[str, Any] = {}
    for value in values:
        label = _label(value, where)
        if label in result:
            raise ConfigError(f"{where}: the value {label} is there twice")
        result[label] = value
    return result


def _label(value: Any, where: str) -> str:
    if isinstance(value, dict):
        if not isinstance(value.get("name"), str | int):
            raise ConfigError(f"{where}: a value that is a mapping needs a name")
        value = value["name"]
    if isinstance(value, list):
        label = "+".join(_label(entry, where) for entry in value)
    elif isinstance(value, bool) or not isinstance(value, str | int | float):
        label = str(value).lower()
    else:
        label = str(value)
    if not _LABEL.fullmatch(label) or label.endswith((".part", ".old")):  # which folders of stages end in, too
        raise ConfigError(f"{where}: {label!r} cannot be part of a stage's name; give it as {{name: …, …}}")
    return label


def _nested(key: str, value: Any) -> dict[str, Any]:
    """``{"a.b": v}`` as ``{"a": {"b": v}}``."""
    first, separator, rest = key.partition(".")
    return {first: _nested(rest, value) if separator else value}


def _walk(value: Any, reference: Reference, stage: str) -> Any:
    for key in reference.path:
        if not isinstance(value, dict) or key not in value:
            known = list(value) if isinstance(value, dict) else []
            hint = nearest_name(key, known) if known else "it is no mapping"
            raise ConfigError(f"stage {stage}: {reference.text} has no {key!r}; {hint}")
        value = value[key]
    return value


class _noting:
    """Notes a ConfigError of the block among the problems, and goes on behind it."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> bool:
        if isinstance(error, ConfigError):
            self.problems.append(str(error))
        return isinstance(error, ConfigError)
