"""`recipe report`: what the stages of a recipe have measured, and their pictures, as one HTML file."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fasttrain.cli.output import JsonOption, finish

if TYPE_CHECKING:
    from fasttrain.recipes.graph import Stage
    from fasttrain.recipes.state import Record, WorkFolder
    from fasttrain.report.stages import StageFacts

_OF_A_RUN = 2  # pictures: the first and the last
_GRID = "grid.png"


def report(
    recipe: Annotated[str, typer.Argument(metavar="FILE", help="A recipe, or the name of one that comes along.")],
    out: Annotated[Path | None, typer.Option(help="The work folder [default: runs/NAME].")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="As for `recipe run`.")] = None,
    to: Annotated[
        Path | None, typer.Option(help="The page to write [default: report.html in the work folder].")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Write a page about what is done of a recipe: figures, pictures, times."""
    from fasttrain.cli.recipe import OpenedRecipe
    from fasttrain.report.page import write_page
    from fasttrain.report.stages import stages_page

    opened = OpenedRecipe(recipe, out, set_, None)
    records = {stage.name: opened.folder.record(stage) for stage in opened.stages}
    done = [_facts(stage, record, opened.folder) for stage in opened.stages if (record := records[stage.name])]
    missing = [name for name, record in records.items() if record is None]
    page = stages_page(opened.recipe.name, opened.recipe.description, done, missing)
    written = write_page(page, to or opened.folder.path / "report.html")
    result: dict[str, Any] = {"report": str(written), "stages": len(done), "missing": len(missing)}
    finish(result, json)


def _facts(stage: "Stage", record: "Record", folder: "WorkFolder") -> "StageFacts":
    from fasttrain.recipes.kinds import FIGURES, PICTURES, RUN
    from fasttrain.report.stages import StageFacts

    pictures: list[Path] = []
    for output in stage.kind.outputs_of(stage.body).values():
        path = folder.output(stage, output.name)
        if output.type == PICTURES:
            pictures += [path / _GRID] if (path / _GRID).exists() else sorted(path.glob("*.png"))[:_OF_A_RUN]
        elif output.type == RUN:
            found = sorted((path / "pictures").glob("*.png"))
            pictures += found if len(found) <= _OF_A_RUN else [found[0], found[-1]]
    measured = any(output.type == FIGURES for output in stage.kind.outputs)
    return StageFacts(stage.name, stage.kind.name, record.seconds, measured, record.result, pictures)
