"""``${…}`` in recipes: variables, loop values, declared files, and the outputs of other stages."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fasttrain.base.errors import ConfigError

_EXPRESSION = re.compile(r"\$\{([^{}]*)\}")
_WITHIN = re.compile(r"\$\{[^{}]*(\$\{[^{}]*\})")
_WHOLE = re.compile(r"\$\{(?:[^{}]|\$\{[^{}]*\})*\}")
_REFERENCE = re.compile(r"\s*(?P<name>[A-Za-z_][\w-]*)(?:\[(?P<selection>[^\]]*)\])?(?P<path>(?:\.[\w-]+)*)\s*")


@dataclass(frozen=True)
class Reference:
    """``${name[axis=value,…].a.b}``.

    Attributes:
        name: of a variable, a loop, a file or a stage.
        selection: wanted value of each axis that is named.
        path: what follows the name: an output, or keys of a mapping.
        text: as it is written.
    """

    name: str
    selection: tuple[tuple[str, str], ...]
    path: tuple[str, ...]
    text: str


@dataclass(frozen=True)
class StageOutput:
    """An output of one stage of the expanded recipe."""

    stage: str
    output: str

    def __str__(self) -> str:
        return f"${{{self.stage}.{self.output}}}"


@dataclass(frozen=True)
class ExternalFile:
    """A file or folder that the recipe declares.

    Attributes:
        name, path: as declared.
        type: what it holds (see `fasttrain.recipes.kinds`), None if the recipe does not say.
        target: whether its labels are those that figures are reported on.
    """

    name: str
    path: str
    type: str | None
    target: bool

    def __str__(self) -> str:
        return f"${{{self.name}}}"


class Absent:
    """What a reference to the round before the first one stands for: nothing at all."""


ABSENT = Absent()
Lookup = Callable[[Reference], Any]


def parse_reference(text: str) -> Reference:
    """Read what stands between the braces.

    Raises:
        ConfigError: it is none.
    """
    match = _REFERENCE.fullmatch(text)
    if match is None:
        raise ConfigError(f"${{{text}}} is no reference; it is written ${{name}}, ${{name.key}} or ${{stage[round=1]}}")
    pairs = []
    for pair in (match["selection"] or "").split(","):
        axis, separator, value = pair.partition("=")
        if pair.strip() and not separator:
            raise ConfigError(f"${{{text}}}: {pair.strip()!r} is not of the form axis=value")
        if separator:
            pairs.append((axis.strip(), value.strip()))
    return Reference(match["name"], tuple(pairs), tuple(match["path"].split(".")[1:]), f"${{{text}}}")


def resolve(value: Any, lookup: Lookup) -> Any:
    """Replace all references in `value`, which may be nested.

    A text that is one reference becomes what this stands for, whatever its type; within a longer text it must be a
    number or a word. A list that a reference stands for is spliced into the list around it. What is absent is left out.
    A reference within another one is replaced first: ``${sources.${target}}``.
    """
    if isinstance(value, str):
        return _resolve_text(value, lookup)
    if isinstance(value, list):
        return _resolve_list(value, lookup)
    if isinstance(value, dict):
        pairs = ((key, resolve(entry, lookup)) for key, entry in value.items())
        return {key: entry for key, entry in pairs if entry is not ABSENT}
    return value


def outputs_in(value: Any) -> list[StageOutput]:
    """The outputs of stages in a resolved `value`, which may be nested."""
    if isinstance(value, StageOutput):
        return [value]
    entries = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [output for entry in entries for output in outputs_in(entry)]


def _resolve_text(text: str, lookup: Lookup) -> Any:
    while (within := _WITHIN.search(text)) is not None:
        text = text[: within.start(1)] + _put_in(within[1], lookup) + text[within.end(1) :]
    whole = _EXPRESSION.fullmatch(text)
    if whole is not None:
        return lookup(parse_reference(whole[1]))
    return _EXPRESSION.sub(lambda match: _put_in(match[0], lookup), text)


def _put_in(expression: str, lookup: Lookup) -> str:
    """What a reference stands for, as a part of a text."""
    value = lookup(parse_reference(expression[2:-1]))
    if isinstance(value, ExternalFile):
        raise ConfigError(f"{expression} in a text is a file; let the file's path or a variable hold the folder")
    if not isinstance(value, str | int | float):
        raise ConfigError(f"{expression} in a text stands for no number or word; let it stand alone")
    return str(value)


def _resolve_list(values: list[Any], lookup: Lookup) -> list[Any]:
    result: list[Any] = []
    for entry in values:
        found = resolve(entry, lookup)
        if found is ABSENT:
            continue
        is_reference = isinstance(entry, str) and _WHOLE.fullmatch(entry) is not None
        if is_reference and isinstance(found, list):
            result += found
        else:
            result.append(found)
    return result
