"""The graph of a recipe: as a tree, as JSON, as DOT."""

from typing import Any

from rich.tree import Tree

from fasttrain.recipes.graph import Stage
from fasttrain.recipes.references import outputs_in

_COLOURS = {"done": "palegreen", "changed": "khaki", "new": "white", "waits": "white", "unfinished": "lightsalmon"}


def as_json(stages: list[Stage], states: dict[str, str], seconds: dict[str, float]) -> list[dict[str, Any]]:
    """Of each stage: its name, kind, state, what it needs, the seconds that it took."""
    return [
        {
            "stage": stage.name,
            "kind": stage.kind.name,
            "state": states[stage.name],
            "needs": [str(output)[2:-1] for output in outputs_in(stage.body)],
            "seconds": seconds.get(stage.name),
        }
        for stage in stages
    ]


def as_dot(stages: list[Stage], states: dict[str, str], name: str) -> str:
    """For Graphviz."""
    lines = [f"digraph {_quoted(name)} {{", "  rankdir=LR; node [shape=box, style=filled];"]
    for stage in stages:
        label = f"{stage.name}\\n{stage.kind.name}, {states[stage.name]}"
        colour = _COLOURS.get(states[stage.name], "white")
        lines.append(f"  {_quoted(stage.name)} [label={_quoted(label)}, fillcolor={colour}];")
        outputs = {(output.stage, output.output) for output in outputs_in(stage.body)}
        lines += [
            f"  {_quoted(source)} -> {_quoted(stage.name)} [label={_quoted(output)}];"
            for source, output in sorted(outputs)
        ]
    return "\n".join([*lines, "}"]) + "\n"


def as_tree(stages: list[Stage], states: dict[str, str], seconds: dict[str, float], name: str) -> Tree:
    """From the last stages back to the first; what stands in it already is not unfolded again."""
    by_name = {stage.name: stage for stage in stages}
    needed = {need for stage in stages for need in stage.needs}
    shown: set[str] = set()
    root = Tree(name)

    def add(branch: Tree, stage: Stage) -> None:
        took = f", {seconds[stage.name]:.1f} s" if stage.name in seconds else ""
        again = stage.name in shown and bool(stage.needs)
        line = f"{stage.name}: {stage.kind.name}, {states[stage.name]}{took}{' (see above)' if again else ''}"
        leaf = branch.add(line.replace("[", "\\["))
        if stage.name in shown:
            return
        shown.add(stage.name)
        for need in stage.needs:
            add(leaf, by_name[need])

    for stage in stages:
        if stage.name not in needed:
            add(root, stage)
    return root


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '\\"') + '"'
