"""The section that tells where every number comes from: settings, hashes, versions, commands."""

import shlex
from typing import Any

from fasttrain.report.page import Block, Commands, Fold, Section, Table, Text
from fasttrain.report.recipe.views import RecipeView, StageView, readable_time, spaced
from fasttrain.report.runs import flat

DIGITS = 12  # of a hash
VALUE = 160  # characters of a value


def stages_section(view: RecipeView) -> Section:
    """A row a stage: its state, how long it took, when and where."""
    rows = [
        [
            spaced(stage.name),
            stage.kind,
            stage.state,
            readable_time(stage.seconds) if stage.is_done else "–",
            str(stage.record.get("attempts", "–")) if stage.is_done else "–",
            str(stage.record.get("finished", "–")) if stage.is_done else "–",
        ]
        for stage in view.stages
    ]
    table = Table(["stage", "kind", "state", "time", "started", "finished"], rows, left=3)
    blocks: list[Block] = [
        Text(f"{stage.name}, {stage.state}: {stage.said}") for stage in view.stages if stage.said and not stage.is_done
    ]
    return Section("Stages", [*blocks, Fold(f"All {len(rows)} stages", [table])])


def provenance_section(view: RecipeView) -> Section:
    """Variables, versions, and of each stage the command, its settings and the hashes of what went in and out."""
    start = view.start
    facts = {key: start.get(key) for key in ("started", "host", "platform", "python", "git_revision")}
    facts["versions"] = ", ".join(f"{name} {version}" for name, version in (start.get("packages") or {}).items())
    facts = {key.replace("_", " "): value for key, value in facts.items() if value}
    blocks: list[Block] = [Commands([str(start["command"])])] if "command" in start else []
    if facts:
        blocks.append(_table(["last run", ""], facts))
    if view.variables:
        blocks.append(_table(["variable", "value"], flat(dict(view.variables))))
    blocks += [Fold(stage.name, _stage_blocks(stage)) for stage in view.stages if stage.is_done]
    return Section("Provenance", blocks)


def _stage_blocks(stage: StageView) -> list[Block]:
    record = stage.record
    hashes = [["goes in", name, str(value)[:DIGITS], "–"] for name, value in record.get("inputs", {}).items()]
    hashes += [
        ["comes out", str(entry["file"]), str(entry["hash"])[:DIGITS], f"{entry['bytes']:,}"]
        for entry in record.get("outputs", {}).values()
    ]
    told = f"Key {str(record.get('key'))[:DIGITS]}, on {record.get('host') or 'an unnamed machine'}."
    blocks: list[Block] = [Text(told, muted=True), Commands([shlex.join(record.get("command", []))])]
    if hashes:
        blocks.append(Table(["", "what", "hash", "bytes"], hashes, left=3))
    settings = flat(dict(record.get("settings", {})))
    return [*blocks, _table(["setting", "value"], settings)] if settings else blocks


def _table(columns: list[str], values: dict[str, Any]) -> Table:
    return Table(columns, [[key, _cut(str(value))] for key, value in values.items()], left=2)


def _cut(text: str) -> str:
    return text if len(text) <= VALUE else text[: VALUE - 1] + "…"
