"""A recipe as the commands of the group ``recipe`` open it, and the options that they share."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from fasttrain.recipes.graph import Stage
    from fasttrain.recipes.schema import RecipeFile
    from fasttrain.recipes.toolbox import Toolbox

Recipe = Annotated[str, typer.Argument(metavar="FILE", help="A recipe (.yaml), or the name of one that comes along.")]
OutOption = Annotated[Path | None, typer.Option(help="The work folder [default: runs/NAME].")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="A variable (size=64), or any key: stages.train.epochs=1; null takes it away."),
]
GpusOption = Annotated[
    str | None, typer.Option(help="GPUs to use, as CUDA_VISIBLE_DEVICES names them: 0,1 [default: all there are].")
]


class OpenedRecipe:
    """A recipe, expanded, with all that the commands need beside it."""

    def __init__(self, where: str, out: Path | None, overrides: list[str] | None, gpus: str | None) -> None:
        from fasttrain.cli.app import app
        from fasttrain.cli.toolbox import CommandLine
        from fasttrain.recipes.expand import expand
        from fasttrain.recipes.load import find_recipe, load_recipe
        from fasttrain.recipes.resources import Machine
        from fasttrain.recipes.state import WorkFolder

        self.path = find_recipe(where).absolute()
        self.recipe: RecipeFile = load_recipe(where, overrides)
        self.toolbox: Toolbox = CommandLine(app)
        self.stages: list[Stage] = expand(self.recipe, self.toolbox)
        self.machine: Machine = Machine.here(gpus)
        self.folder: WorkFolder = WorkFolder(out or Path("runs") / self.recipe.name)

    @property
    def class_count(self) -> int | None:
        """Number of classes of the first data set that tells, for the size of tables."""
        from fasttrain.recipes.command import files_of

        paths = [getattr(file, "path", file) for stage in self.stages for _, file in files_of(stage)]
        found = (self.toolbox.class_names(Path(path)) for path in paths if isinstance(path, str))
        return next((len(names) for names in found if names), None)

    def states(self) -> tuple[dict[str, str], dict[str, float]]:
        """State of each stage, and the seconds that the finished ones took."""
        from fasttrain.recipes.run import Runner, Selection, describe_plan

        wanted = Selection(frozenset(stage.name for stage in self.stages))
        runner = Runner(self.stages, wanted, self.folder, self.toolbox, self.machine)
        states = {entry["stage"]: entry["state"] for entry in describe_plan(runner)}
        for stage in self.stages:
            if states[stage.name] != "done" and self.folder.part(stage).exists():
                states[stage.name] = "unfinished"
        return states, {name: record.seconds for name, record in runner.records.items()}

    def write_recipe(self) -> None:
        """Keep the effective recipe, and how it was started, in the work folder."""
        from fasttrain.base.runs import RunFolder

        RunFolder(self.folder.path).write_start(self.recipe.model_dump(mode="json"))
