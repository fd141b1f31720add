"""The stages of an expanded recipe, and which of them need which."""

from dataclasses import dataclass
from typing import Any

from fasttrain.base.config import nearest_name
from fasttrain.base.errors import ConfigError
from fasttrain.recipes.kind import Kind
from fasttrain.recipes.references import outputs_in
from fasttrain.recipes.schema import StageHead


@dataclass(frozen=True)
class Stage:
    """One stage of the expanded recipe.

    Attributes:
        name: ``train`` or ``train[model=a,round=1]``.
        template: the stage of the recipe that it comes from.
        axes: label of its value on each axis.
        kind, head: how it is done.
        body: inputs and options; inputs are texts (paths), `ExternalFile`s and `StageOutput`s.
    """

    name: str
    template: str
    axes: dict[str, str]
    kind: Kind
    head: StageHead
    body: dict[str, Any]

    @property
    def needs(self) -> list[str]:
        """Names of the stages whose outputs it takes, each once."""
        return list(dict.fromkeys(output.stage for output in outputs_in(self.body)))

    @property
    def folder(self) -> str:
        """Where its outputs lie below the folder of all stages."""
        return ",".join([self.template, *(f"{axis}={label}" for axis, label in self.axes.items())])

    def value(self, key: str) -> Any:
        """What stands in the body under a dotted key; None if nothing does."""
        value: Any = self.body
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        return value


def stage_name(template: str, axes: dict[str, str]) -> str:
    """``train`` or ``train[model=a,round=1]``."""
    return f"{template}[{','.join(f'{axis}={label}' for axis, label in axes.items())}]" if axes else template


def chosen(stages: list[Stage], names: list[str]) -> list[str]:
    """Names of the stages that `names` mean: one by its full name, or all that come from one of the recipe.

    Raises:
        ConfigError: there is none.
    """
    found: dict[str, None] = {}
    for name in names:
        meant = [stage.name for stage in stages if name in (stage.name, stage.template)]
        if not meant:
            known = list(dict.fromkeys(entry for stage in stages for entry in (stage.template, stage.name)))
            raise ConfigError(f"there is no stage {name!r}; {nearest_name(name, known)}")
        found |= dict.fromkeys(meant)
    return list(found)


def after(stages: list[Stage], names: list[str]) -> set[str]:
    """`names`, and all stages that need one of them, directly or not."""
    found = set(names)
    for stage in stages:
        if found & set(stage.needs):
            found.add(stage.name)
    return found


def before(stages: list[Stage], names: list[str]) -> set[str]:
    """`names`, and all stages that one of them needs, directly or not."""
    found = set(names)
    for stage in reversed(stages):
        if stage.name in found:
            found |= set(stage.needs)
    return found


def ordered(stages: list[Stage]) -> list[Stage]:
    """The stages in an order in which they can be done, otherwise as the recipe has them.

    Raises:
        ConfigError: some need each other in a circle.
    """
    done: dict[str, Stage] = {}
    waiting = {stage.name: stage for stage in stages}
    while waiting:
        ready = [stage for stage in waiting.values() if all(need in done for need in stage.needs)]
        if not ready:
            raise ConfigError(_describe_cycle(waiting))
        for stage in ready:
            done[stage.name] = waiting.pop(stage.name)
    return list(done.values())


def _describe_cycle(waiting: dict[str, Stage]) -> str:
    path = [next(iter(waiting))]
    while True:
        following = next(need for need in waiting[path[-1]].needs if need in waiting)
        if following in path:
            circle = [*path[path.index(following) :], following]
            return f"stages need each other in a circle: {' → '.join(reversed(circle))}"
        path.append(following)
