"""A recipe's stages as its report sees them: plain facts, and the ways between stages."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

DONE = "done"


@dataclass(frozen=True)
class StageView:
    """A stage of an expanded recipe.

    Attributes:
        name, template, axes, kind: ``train[model=a,round=1]``, ``train``, {model: a, round: 1}, ``train``.
        state: "done", or what else is the matter with it; figures of stages that are not done count for nothing.
        inputs: (input's key, stage, output) of each output of others that it takes.
        files: paths of each input that come from outside.
        outputs: paths.
        record: what is kept of a finished stage: key, inputs, outputs, settings, command, result, seconds, attempts, …
        said: the last line of the log of one that was begun and is not done.
    """

    name: str
    template: str
    axes: Mapping[str, str]
    kind: str
    state: str
    inputs: Sequence[tuple[str, str, str]] = ()
    files: Mapping[str, Sequence[str]] = field(default_factory=dict)
    outputs: Mapping[str, Path] = field(default_factory=dict)
    record: Mapping[str, Any] = field(default_factory=dict)
    said: str = ""

    @property
    def is_done(self) -> bool:
        """Whether its outputs are there and of now."""
        return self.state == DONE

    @property
    def result(self) -> Mapping[str, Any]:
        """The JSON object that its command printed; {} of a stage that is not done."""
        return self.record.get("result", {}) if self.is_done else {}

    @property
    def seconds(self) -> float:
        """That it took; 0 of a stage that is not done."""
        return float(self.record.get("seconds", 0.0)) if self.is_done else 0.0


@dataclass(frozen=True)
class RecipeView:
    """A recipe and its work folder.

    Attributes:
        name, description: of the recipe.
        stages: each after those that it needs.
        variables: as they were set.
        start: how it was run last: command, versions, git revision, machine.
    """

    name: str
    description: str
    stages: Sequence[StageView]
    variables: Mapping[str, Any] = field(default_factory=dict)
    start: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def by_name(self) -> dict[str, StageView]:
        """The stages by name."""
        return {stage.name: stage for stage in self.stages}

    def of_kind(self, *kinds: str) -> list[StageView]:
        """Finished stages of these kinds."""
        return [stage for stage in self.stages if stage.kind in kinds and stage.is_done]

    def sources(self, stage: StageView, *keys: str) -> list[StageView]:
        """The stages whose outputs an input has (or several inputs)."""
        return [self.by_name[name] for key, name, _ in stage.inputs if key in keys]

    @cached_property
    def _all_before(self) -> dict[str, frozenset[str]]:
        found: dict[str, frozenset[str]] = {}
        for stage in self.stages:
            needs = {name for _, name, _ in stage.inputs}
            found[stage.name] = frozenset(needs).union(*(found[name] for name in needs))
        return found

    def before(self, stage: StageView) -> frozenset[str]:
        """Names of all stages that one needs, directly or not."""
        return self._all_before[stage.name]

    @cached_property
    def rounds(self) -> tuple[str, list[str]] | None:
        """The axis along which stages need themselves of earlier labels, and its labels in order; None without one."""
        steps: dict[str, set[tuple[str, str]]] = {}
        for stage in self.stages:
            for other in (self.by_name[name] for name in self.before(stage)):
                if other.template == stage.template:
                    for axis, label in stage.axes.items():
                        steps.setdefault(axis, set()).add((other.axes[axis], label))
        for axis, pairs in steps.items():
            moves = {(one, other) for one, other in pairs if one != other}
            if moves and not any((other, one) in moves for one, other in moves):  # models teach each other both ways
                return axis, list(dict.fromkeys(one.axes[axis] for one in self.stages if axis in one.axes))
        return None

    def round_of(self, stage: StageView) -> str | None:
        """Label of its round."""
        return stage.axes.get(self.rounds[0]) if self.rounds is not None else None

    def of_round_before(self, stage: StageView) -> StageView | None:
        """The same stage, a round earlier."""
        label = self.round_of(stage)
        if self.rounds is None or label is None or label == self.rounds[1][0]:
            return None
        axis, labels = self.rounds
        wanted = {**stage.axes, axis: labels[labels.index(label) - 1]}
        return next((one for one in self.stages if one.template == stage.template and one.axes == wanted), None)

    def of_last_round(self, stages: Sequence[StageView]) -> list[StageView]:
        """Of each stage that is there for several rounds, the one of the last."""
        axis = self.rounds[0] if self.rounds is not None else ""
        last = {(one.template, *((key, one.axes[key]) for key in one.axes if key != axis)): one for one in stages}
        return list(last.values())

    def pictures_of(self, table: StageView) -> list[Path]:
        """The ``.beton`` files whose samples a stage's scores or labels are of, those next to it first."""
        found: list[Path] = []
        for stage in reversed(self.stages):
            if stage.kind == "predict" and stage.name in self.before(table):
                found += [self.by_name[name].outputs[output] for key, name, output in stage.inputs if key == "data"]
                found += [Path(path) for path in stage.files.get("data", ())]
        return [path for path in dict.fromkeys(found) if path.suffix == ".beton" and path.exists()]


def brief_name(name: str) -> str:
    """``train[model=a,round=1].best`` as ``train.best a, 1``, which figures and narrow columns have room for."""
    template, bracket, rest = name.partition("[")
    axes, _, output = rest.rpartition("]")
    values = ", ".join(pair.partition("=")[2] for pair in axes.split(","))
    return f"{template}{output} {values}" if bracket else name


def spaced(name: str) -> str:
    """A stage's name as it may stand in narrow columns, broken between its axes."""
    return name.replace(",", ", ")


def readable_time(seconds: float) -> str:
    """``4.2 s``, ``3.1 min`` or ``5.0 h``."""
    if seconds < 90:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
