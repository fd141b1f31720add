"""Kinds fit the commands that they name: what is given to an input, the command takes."""

from pathlib import Path

import pytest

from fasttrain.recipes.command import RESERVED, command_of
from fasttrain.recipes.expand import expand
from fasttrain.recipes.kind import TYPES, Kind
from fasttrain.recipes.kinds import KINDS
from fasttrain.recipes.references import ExternalFile
from fasttrain.recipes.schema import HEAD_KEYS, RecipeFile
from fasttrain.recipes.toolbox import Toolbox


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_declarations_hold_together(kind: Kind, toolbox: Toolbox) -> None:
    keys = [entry.key for entry in kind.inputs]
    assert len(set(keys)) == len(keys)
    assert not set(keys) & {*RESERVED, *HEAD_KEYS}
    assert {name for entry in kind.inputs for name in entry.types} | {out.type for out in kind.outputs} <= set(TYPES)
    named = {*kind.same_classes, *(key for pair in kind.known_classes for key in pair)}
    assert named | ({kind.sized_by} if kind.sized_by else set()) <= set(keys)
    options = toolbox.options(kind.command)
    if options is not None:
        told = {output.option.removeprefix("--").replace("-", "_") for output in kind.outputs if output.option}
        assert told <= options.keys()
        assert set(kind.renamed.values()) <= options.keys()


@pytest.mark.parametrize("kind", [kind for kind in KINDS if not kind.takes_settings], ids=lambda kind: kind.name)
def test_the_command_takes_what_its_kind_gives_it(kind: Kind, toolbox: Toolbox, tmp_path: Path) -> None:
    """Each input that the command knows, one after the other, with the required ones."""
    options = toolbox.options(kind.command)
    if options is None:
        pytest.skip(f"there is no command {' '.join(kind.command)}")
    more = {"import": {"space": "probs"}, "pseudo": {"threshold": 0.5}}.get(kind.name, {})
    needed = [entry for entry in kind.inputs if entry.required or (entry.positional and entry.many)]
    for extra in kind.inputs:
        if not extra.positional and extra.key not in options:
            continue
        body = {"kind": kind.name, **more}
        for entry in {*needed, extra}:
            body[entry.key] = ["x", "y"] if entry.many else "x"
        recipe = RecipeFile.model_validate({"name": "test", "stages": {"it": body}})
        command = command_of(expand(recipe, toolbox)[0], toolbox, tmp_path, str)
        assert toolbox.usage_error(command.arguments) is None, command.arguments


def test_options_become_words_as_the_command_wants_them(toolbox: Toolbox, tmp_path: Path) -> None:
    def words(body: dict) -> list[str]:
        recipe = RecipeFile.model_validate({"name": "test", "stages": {"it": body}})
        return command_of(expand(recipe, toolbox)[0], toolbox, tmp_path, str).arguments

    built = words({"kind": "build", "sources": ["a", "b"], "index": False, "repack": True, "keep": ["x", "y"]})
    out = str(tmp_path / "data.beton")
    expected = ["build", "a", "b", out, "--no-index", "--repack", "--keep", "x", "--keep", "y", "--resume", "--json"]
    assert built == expected
    combined = words({"kind": "ensemble", "tables": ["a", "b"], "weights": [0.25, 0.75]})
    assert combined[combined.index("--weights") + 1] == "0.25,0.75"
    assert "--zip" in words({"kind": "submit", "table": "a", "zip": True})
    assert "--zip" not in words({"kind": "submit", "table": "a", "zip": False})


def test_a_target_set_is_built_without_its_labels(toolbox: Toolbox, tmp_path: Path) -> None:
    recipe = RecipeFile.model_validate(
        {
            "name": "test",
            "files": {"test": {"path": "images", "target": True}},
            "stages": {"it": {"kind": "build", "sources": "${test}"}},
        }
    )
    stage = expand(recipe, toolbox)[0]
    assert stage.body["sources"] == ExternalFile("test", "images", None, True)
    words = command_of(stage, toolbox, tmp_path, str).arguments
    assert words[words.index("--withhold-labels") + 1] == str(tmp_path / "labels.csv")
