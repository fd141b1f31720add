"""Commands about training runs: the group ``runs``."""

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from fasttrain.cli.output import JsonOption, finish

RootOption = Annotated[Path, typer.Option("--root", help="The folder that holds the runs.")]
Names = Annotated[list[str], typer.Argument(help="Names of runs, as `runs list` shows them.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    group = typer.Typer(help="List, compare and remove training runs; what was run.", no_args_is_help=True)
    group.command("list")(list_)
    group.command("show")(show)
    group.command("compare")(compare)
    group.command("rm")(rm)
    group.command("log")(log)
    app.add_typer(group, name="runs")


def list_(root: RootOption = Path("runs"), json: JsonOption = False) -> None:
    """All runs: model, epochs, accuracy (mIoU of segmentation), state."""
    from fasttrain.base.console import emit_json, print_table
    from fasttrain.report.runs import find_runs, summary

    rows = [summary(name, run) for name, run in find_runs(root).items()]
    if json:
        emit_json({"root": str(root), "runs": rows})
        return
    columns = ["run", "state", "model", "epochs", "loss", "top-1 / mIoU", "best", "images/s", "started"]
    cells = [
        [
            row["name"],
            row["state"],
            str(row["model"] or "-"),
            f"{row['done']}/{row['epochs'] or '?'}",
            _number(row["train_loss"], ".4f"),
            _number(row["top1"] if row["miou"] is None else row["miou"], ".4f"),
            _number(row["best_top1"] if row["best_miou"] is None else row["best_miou"], ".4f"),
            _number(row["images_per_s"], ",.1f"),
            str(row["started"] or "-")[:16].replace("T", " "),
        ]
        for row in rows
    ]
    print_table(f"runs in {root}", columns, cells)


def show(
    name: Annotated[str, typer.Argument(help="Name of a run, as `runs list` shows it.")],
    root: RootOption = Path("runs"),
    json: JsonOption = False,
) -> None:
    """Everything about a run: settings, how it was started, each epoch, its files."""
    from fasttrain.base.console import emit_json, print_table
    from fasttrain.report.runs import details, named_runs

    facts = details(name, named_runs(root, [name])[name])
    if json:
        emit_json(facts)
        return
    parts = {key: facts.pop(key) for key in ("settings", "start", "epochs_recorded", "files")}
    finish(facts, False)
    print_table("settings", ["setting", "value"], [[key, str(value)] for key, value in parts["settings"].items()])
    print_table("start", ["", "value"], [[key, str(value)] for key, value in parts["start"].items()])
    keys = dict.fromkeys(key for record in parts["epochs_recorded"] for key in record)
    plain = [key for key in keys if all(_is_number(record.get(key)) for record in parts["epochs_recorded"])]
    rows = [[f"{record[key]:.6g}" for key in plain] for record in parts["epochs_recorded"]]
    print_table("epochs", plain or ["epoch"], rows)
    print_table("files", ["file", "bytes"], [[key, f"{value:,}"] for key, value in parts["files"].items()])


def compare(
    names: Names,
    root: RootOption = Path("runs"),
    out: Annotated[Path | None, typer.Option(help="Write a page with overlaid curves (.html) as well.")] = None,
    json: JsonOption = False,
) -> None:
    """Runs side by side: last figures, the settings in which they differ, and (--out) their curves."""
    from fasttrain.base.console import emit_json, print_table
    from fasttrain.report.runs import differences, named_runs, summary, write_comparison

    runs = named_runs(root, names)
    rows, settings = [summary(name, run) for name, run in runs.items()], differences(runs)
    if out is not None:
        write_comparison(runs, out)
    if json:
        emit_json({"runs": rows, "settings": settings, "out": None if out is None else str(out)})
        return
    facts = [key for key in rows[0] if key != "name"]
    print_table("figures", ["", *runs], [[key, *(_shown(row[key]) for row in rows)] for key in facts])
    cells = [[key, *(_shown(value) for value in values.values())] for key, values in settings.items()]
    print_table("settings that differ", ["", *runs], cells)
    if out is not None:
        finish({"out": str(out)}, False)


def rm(
    names: Names,
    root: RootOption = Path("runs"),
    force: Annotated[bool, typer.Option("--force", help="Even runs that seem to be running.")] = False,
    json: JsonOption = False,
) -> None:
    """Move runs to the trash folder below --root; exact names only."""
    from fasttrain.report.runs import move_to_trash

    finish({name: str(place) for name, place in move_to_trash(root, names, force=force).items()}, json)


def log(
    last: Annotated[int, typer.Option(min=1, help="How many commands.")] = 20,
    json: JsonOption = False,
) -> None:
    """The last commands of this user: when, where, by which process, how they ended."""
    from fasttrain.base.command_log import read_log
    from fasttrain.base.console import emit_json, print_table

    commands = read_log()[-last:]
    if json:
        emit_json({"commands": [vars(command) for command in commands]})
        return
    cells = [
        [
            time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(command.started)),
            str(command.pid),
            _number(command.seconds, ",.1f"),
            "-" if command.exit_code is None else str(command.exit_code),
            command.command + (f"\n    {command.error}" if command.error else ""),
            command.folder,
        ]
        for command in commands
    ]
    print_table("commands", ["started", "PID", "seconds", "exit", "command", "folder"], cells)


def _number(value: Any, form: str) -> str:
    return "-" if value is None else format(value, form)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def _shown(value: Any) -> str:
    return "-" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
