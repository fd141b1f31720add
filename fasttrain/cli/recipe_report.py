"""The command ``recipe report``, and the page that ``recipe run`` leaves behind."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fasttrain.cli.opened_recipe import OpenedRecipe, OutOption, Recipe, SetOption
from fasttrain.cli.output import JsonOption, finish

if TYPE_CHECKING:
    from fasttrain.recipes.graph import Stage
    from fasttrain.report.recipe.views import RecipeView, StageView

PAGE = "report.html"


def report(
    recipe: Recipe,
    out: OutOption = None,
    set_: SetOption = None,
    html: Annotated[Path | None, typer.Option(help=f"The page to write [default: {PAGE} in the work folder].")] = None,
    json: JsonOption = False,
) -> None:
    """Write a page about what there is of a recipe: graph, accuracies, what each step added, labels, provenance."""
    from fasttrain.base.errors import ConfigError
    from fasttrain.report.recipe.page import recipe_figures, write_recipe_page

    opened = OpenedRecipe(recipe, out, set_, None)
    if not opened.folder.path.is_dir():
        raise ConfigError(f"{opened.folder.path}: no such work folder; `fasttrain recipe run` makes it")
    view = recipe_view(opened)
    path = write_recipe_page(view, html or opened.folder.path / PAGE)
    finish({**recipe_figures(view), "html": str(path)}, json, hide=("accuracies", "masks", "gains", "trainings"))


def leave_report(opened: OpenedRecipe, outcome: Mapping[str, str]) -> Path | None:
    """Write the page behind a run; one that cannot be written takes nothing from the run.

    Args:
        outcome: what became of each stage that was looked at.
    """
    from fasttrain.base.console import say
    from fasttrain.base.errors import FasttrainError
    from fasttrain.report.recipe.page import write_recipe_page

    try:
        return write_recipe_page(recipe_view(opened, outcome), opened.folder.path / PAGE)
    except (FasttrainError, OSError, ValueError, KeyError) as error:
        say(f"the report could not be written: {error}")
        return None


def recipe_view(opened: OpenedRecipe, outcome: Mapping[str, str] | None = None) -> "RecipeView":
    """The recipe as reports see it."""
    from fasttrain.base.runs import RunFolder
    from fasttrain.recipes.run import CANCELLED, FAILED
    from fasttrain.report.recipe.views import RecipeView

    states, _ = opened.states()
    bad = {name: state for name, state in (outcome or {}).items() if state in (FAILED, CANCELLED)}
    states |= bad
    views = [_stage_view(opened, stage, states[stage.name]) for stage in opened.stages]
    start = RunFolder(opened.folder.path).read_json("start.json")
    return RecipeView(opened.recipe.name, opened.recipe.description, views, opened.recipe.vars, start)


def _stage_view(opened: OpenedRecipe, stage: "Stage", state: str) -> "StageView":
    from dataclasses import asdict

    from fasttrain.recipes.command import files_of
    from fasttrain.recipes.launch import last_words
    from fasttrain.recipes.references import StageOutput
    from fasttrain.recipes.state import LOG
    from fasttrain.report.recipe.views import StageView

    folder, files = opened.folder, list(files_of(stage))
    taken = [(entry.key, file.stage, file.output) for entry, file in files if isinstance(file, StageOutput)]
    outside: dict[str, list[str]] = {}
    for entry, file in files:
        if not isinstance(file, StageOutput):
            outside.setdefault(entry.key, []).append(str(getattr(file, "path", file)))
    record: Any = folder.record(stage)
    log = folder.part(stage) / LOG
    return StageView(
        name=stage.name,
        template=stage.template,
        axes=stage.axes,
        kind=stage.kind.name,
        state=state,
        inputs=taken,
        files=outside,
        outputs={name: folder.output(stage, name) for name in stage.kind.outputs_of(stage.body)},
        record={} if record is None else asdict(record),
        said=last_words(log) if state != "done" and log.exists() else "",
    )
