"""The commands ``recipe check``, ``show``, ``run`` and ``slurm``; ``report`` is in a module of its own."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from fasttrain.cli.output import JsonOption, finish
from fasttrain.cli.recipe_report import report

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


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    group = typer.Typer(help="Whole systems as one file: check, show and run their stages.", no_args_is_help=True)
    group.command("check")(check)
    group.command("show")(show)
    group.command("run")(run)
    group.command("slurm")(slurm)
    group.command("report")(report)
    app.add_typer(group, name="recipe")


def check(
    recipe: Recipe,
    out: OutOption = None,
    set_: SetOption = None,
    gpus: GpusOption = None,
    json: JsonOption = False,
) -> None:
    """Find what is wrong before anything is spent: keys, references, files, classes, GPUs; estimate the cost."""
    from fasttrain.recipes.check import check as find_problems
    from fasttrain.recipes.estimate import estimate
    from fasttrain.recipes.expand import RecipeProblems

    try:
        opened = OpenedRecipe(recipe, out, set_, gpus)
    except RecipeProblems as error:
        _fail(error.problems, json)
    problems = find_problems(opened.recipe, opened.stages, opened.toolbox, opened.machine, opened.folder.path)
    if problems:
        _fail(problems, json)
    cost = estimate(opened.stages, opened.folder, opened.class_count).as_json()
    result = {"ok": True, "name": opened.recipe.name, "stages": len(opened.stages), "problems": [], "estimate": cost}
    if not json:
        result = {"ok": True, "name": opened.recipe.name, "stages": len(opened.stages), **_readable_cost(cost)}
    finish(result, json)


def show(
    recipe: Recipe,
    out: OutOption = None,
    set_: SetOption = None,
    dot: Annotated[bool, typer.Option("--dot", help="Print the graph for Graphviz.")] = False,
    json: JsonOption = False,
) -> None:
    """Show the graph of stages and what is done of it."""
    from rich.console import Console

    from fasttrain.base.console import emit_json
    from fasttrain.recipes import show as views

    opened = OpenedRecipe(recipe, out, set_, None)
    states, seconds = opened.states()
    if dot:
        print(views.as_dot(opened.stages, states, opened.recipe.name), end="")
    elif json:
        emit_json({"name": opened.recipe.name, "stages": views.as_json(opened.stages, states, seconds)})
    else:
        Console(highlight=False).print(views.as_tree(opened.stages, states, seconds, opened.recipe.name))


def run(
    recipe: Recipe,
    out: OutOption = None,
    set_: SetOption = None,
    from_: Annotated[
        list[str] | None, typer.Option("--from", metavar="STAGE", help="Do this stage and all behind it again.")
    ] = None,
    until: Annotated[
        list[str] | None, typer.Option(metavar="STAGE", help="Only this stage and those that it needs.")
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(metavar="STAGE", help="Only this stage; what it needs must be done.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and end.")] = False,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Stages at the same time [default: one a GPU, one without].")
    ] = None,
    gpus: GpusOption = None,
    json: JsonOption = False,
) -> None:
    """Do what is left to do of a recipe; what is done, with the same inputs and settings, is skipped."""
    from fasttrain.recipes.check import require_sound
    from fasttrain.recipes.graph import chosen
    from fasttrain.recipes.run import CANCELLED, DONE, FAILED, SKIPPED, Runner, StagesFailed, describe_plan, select

    opened = OpenedRecipe(recipe, out, set_, gpus)
    require_sound(opened.recipe, opened.stages, opened.toolbox, opened.machine, opened.folder.path)
    named = [chosen(opened.stages, names or []) for names in (from_, until, only)]
    selection = select(opened.stages, *named)
    runner = Runner(opened.stages, selection, opened.folder, opened.toolbox, opened.machine, jobs)
    if dry_run:
        _print_plan(describe_plan(runner), json)
        return
    opened.write_recipe()
    outcome = runner.run()
    failed = outcome.in_state(FAILED)
    report: dict[str, Any] = {"name": opened.recipe.name, "out": str(opened.folder.path)}
    for key, state in (("done", DONE), ("skipped", SKIPPED), ("failed", FAILED), ("cancelled", CANCELLED)):
        report[key] = outcome.in_state(state)
    finish({**report, "results": outcome.results} if json else {k: v for k, v in report.items() if v}, json)
    if failed:
        names, lost = ", ".join(failed[:5]), len(report["cancelled"])
        raise StagesFailed(
            f"{len(failed)} of {len(outcome.states)} stages failed ({names}), and {lost} that need them were not "
            "begun; see what their logs say, mend it, and run the same line again: what is done stays done"
        )


def slurm(
    recipe: Recipe,
    to: Annotated[Path, typer.Option(help="Folder for the job scripts.")],
    out: OutOption = None,
    set_: SetOption = None,
    gpus_per_node: Annotated[int, typer.Option(min=0, help="GPUs of a machine.")] = 8,
    cores_per_node: Annotated[int, typer.Option(min=1, help="Cores of a machine.")] = 64,
    sbatch: Annotated[
        list[str] | None, typer.Option(metavar="OPTION", help="A further option of all jobs: --partition=a.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Write a job script for each stage, and submit.sh, which submits them with their dependencies."""
    from fasttrain.recipes.check import require_sound
    from fasttrain.recipes.resources import Machine
    from fasttrain.recipes.slurm import write_jobs

    machine = Machine(tuple(map(str, range(gpus_per_node))), cores_per_node, slurm=True)
    opened = OpenedRecipe(recipe, out, set_, None)
    require_sound(opened.recipe, opened.stages, opened.toolbox, machine, opened.folder.path)
    arguments = [str(opened.path), "--out", str(opened.folder.path)]
    arguments += [word for override in set_ or [] for word in ("--set", override)]
    scripts = write_jobs(opened.stages, to, arguments, machine, sbatch or [])
    finish({"scripts": len(scripts) - 1, "submit": str(scripts[-1])}, json)


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


def _fail(problems: list[str], as_json: bool) -> NoReturn:
    from fasttrain.base.console import say

    if as_json:
        finish({"ok": False, "problems": problems}, True)
    for problem in problems:
        say(problem)
    say(f"{len(problems)} problems")
    raise typer.Exit(1)


def _readable_cost(cost: dict[str, Any]) -> dict[str, Any]:
    lines = {"to do": f"{cost['stages']} stages"}
    if cost["seconds"]:
        lines["known to take"] = f"{cost['seconds'] / 60:.1f} minutes, one stage after the other"
    if cost["unknown"]:
        lines["of unknown length"] = f"{len(cost['unknown'])} stages: nothing like them was done in this folder yet"
    if cost["bytes"]:
        lines["to be written"] = f"{cost['bytes'] / 1e9:.2f} GB at least, with {cost['free'] / 1e9:.0f} GB free"
    return lines


def _print_plan(plan: list[dict[str, Any]], as_json: bool) -> None:
    from fasttrain.base.console import emit_json

    if as_json:
        emit_json({"plan": plan})
        return
    for entry in plan:
        print(f"{entry['state']:8} {entry['stage']}")
        if entry["state"] != "done":
            print(f"         {entry['command']}")
